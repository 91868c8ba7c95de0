//! debuginfod: asks servers for the debuginfo of a build id, and keeps what they give.
//!
//! The cache is laid out as elfutils' own client has it, so that both find what the other has fetched. A file gets its name only
//! after its build id was checked.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use rustls::crypto::ring;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, http::Response};
use vmcore::limits::Limits;
use vmcore::progress::{Cancel, Progress, Quiet};
use vmcore::sym::build_id::BuildId;
use vmcore::sym::dwarf::Debuginfo;

/// How long a server may be silent (`DEBUGINFOD_TIMEOUT`).
const SILENCE: Duration = Duration::from_secs(90);
/// How long «no server has it» holds, as for elfutils' client.
const MISS: Duration = Duration::from_mins(10);
/// Bytes of one file at most: a vmlinux has about a gigabyte.
const LARGEST: u64 = 8 << 30;
/// Servers that are asked at most.
const SERVERS: usize = 16;

/// What the servers said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The file is here.
    File(PathBuf),
    /// No server has it.
    Nowhere,
}

/// Why the servers could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// At least one server did not answer, and none had it.
    #[error("debuginfo was not fetched: {url} {why}")]
    Server {
        /// Which.
        url: String,
        /// «can't be reached: connection refused».
        why: String,
    },
    /// The cache can't be written.
    #[error("debuginfo was not fetched: {} can't be written: {source}", path.display())]
    Cache {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody pressed Ctrl-C.
    #[error("debuginfo was not fetched: it was interrupted")]
    Interrupted,
}

/// debuginfod servers, and the cache for what they gave.
pub struct Servers {
    urls: Vec<String>,
    cache: PathBuf,
    silence: Duration,
    longest: Option<Duration>,
    progress: Arc<dyn Progress>,
    agent: OnceLock<Agent>,
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Servers")
            .field("urls", &self.urls)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl Servers {
    /// As the environment says it, in the variables of elfutils' client: `DEBUGINFOD_URLS`, `DEBUGINFOD_CACHE_PATH`, `XDG_CACHE_HOME`, `HOME`,
    /// `DEBUGINFOD_TIMEOUT`, `DEBUGINFOD_MAXTIME`. `None` where no server is named, or no place for a cache.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // Other words, such as `ima:enforcing`, are no servers.
        let is_server = |word: &&str| word.starts_with("http://") || word.starts_with("https://");
        let urls: Vec<String> = text("DEBUGINFOD_URLS")?
            .split_whitespace()
            .filter(is_server)
            .take(SERVERS)
            .map(|url| url.trim_end_matches('/').to_owned())
            .collect();
        let cache = path("DEBUGINFOD_CACHE_PATH").or_else(|| {
            let home = path("HOME");
            // The place of clients before 0.178; where it is there it is still used.
            let older =
                home.as_ref().map(|home| home.join(".debuginfod_client_cache")).filter(|p| p.is_dir());
            let base = path("XDG_CACHE_HOME").or_else(|| Some(home?.join(".cache")));
            older.or_else(|| Some(base?.join("debuginfod_client")))
        })?;
        let seconds =
            |name: &str| text(name)?.trim().parse().ok().filter(|s| *s > 0).map(Duration::from_secs);
        let silence = seconds("DEBUGINFOD_TIMEOUT").unwrap_or(SILENCE);
        (!urls.is_empty()).then(|| Self {
            urls,
            cache,
            silence,
            longest: seconds("DEBUGINFOD_MAXTIME"),
            progress: Arc::new(Quiet),
            agent: OnceLock::new(),
        })
    }

    /// Somebody who is told how far a file is.
    #[must_use]
    pub fn watched(mut self, progress: Arc<dyn Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// The file for a build id: from the cache, or from the first server that has it.
    ///
    /// # Errors
    /// When a server does not answer or answers nonsense and no other has the file; when the cache can't be written; after Ctrl-C.
    pub fn fetch(&self, id: &BuildId, cancel: &Cancel) -> Result<Fetched, ServerError> {
        let folder = self.cache.join(id.to_string());
        let path = folder.join("debuginfo");
        if let Ok(meta) = fs::metadata(&path) {
            if meta.len() > 0 {
                return Ok(Fetched::File(path));
            }
            let age = meta.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            if age.is_some_and(|age| age < MISS) {
                return Ok(Fetched::Nowhere);
            }
        }
        let mut failed = None;
        for url in &self.urls {
            let whole = format!("{}/buildid/{id}/debuginfo", url.trim_end_matches("/buildid"));
            match self.ask(&whole, id, &folder, &path, cancel) {
                Ok(true) => return Ok(Fetched::File(path)),
                Ok(false) => {}
                Err(Stop::Server(why)) => {
                    failed = failed.or(Some(ServerError::Server { url: url.clone(), why }));
                }
                Err(Stop::Cache(source)) => return Err(ServerError::Cache { path: folder, source }),
                Err(Stop::Interrupted) => return Err(ServerError::Interrupted),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        // Remembered as elfutils' client does: an empty file. Where it can't be, the servers are asked again next time.
        let _ = fs::create_dir_all(&folder).and_then(|()| File::create(&path));
        Ok(Fetched::Nowhere)
    }

    fn agent(&self) -> &Agent {
        self.agent.get_or_init(|| {
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::PlatformVerifier)
                .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
            let config = Agent::config_builder()
                .timeout_resolve(Some(self.silence))
                .timeout_connect(Some(self.silence))
                .timeout_recv_response(Some(self.silence))
                .timeout_per_read(Some(self.silence))
                .timeout_global(self.longest)
                .http_status_as_error(false)
                .user_agent(concat!("kdt/", env!("CARGO_PKG_VERSION")))
                .tls_config(tls.build());
            config.build().into()
        })
    }

    /// Asks one server; true where the file is in the cache now, false where the server does not have it.
    fn ask(
        &self,
        url: &str,
        id: &BuildId,
        folder: &Path,
        path: &Path,
        cancel: &Cancel,
    ) -> Result<bool, Stop> {
        let unreachable = |error: ureq::Error| Stop::Server(format!("can't be asked: {error}"));
        let response: Response<Body> = self.agent().get(url).call().map_err(unreachable)?;
        match response.status().as_u16() {
            200 => {}
            404 => return Ok(false),
            status => return Err(Stop::Server(format!("answers with HTTP status {status}"))),
        }
        let mut body = response.into_body();
        self.progress.step("fetch debuginfo", body.content_length());
        fs::create_dir_all(folder).map_err(Stop::Cache)?;
        let mut file =
            tempfile::Builder::new().prefix("debuginfo.").tempfile_in(folder).map_err(Stop::Cache)?;
        self.copy(body.with_config().limit(LARGEST).reader(), file.as_file_mut(), cancel)?;
        file.as_file().sync_all().map_err(Stop::Cache)?;
        let opened = Debuginfo::open(file.path(), &Limits::default());
        let theirs = opened.map_err(|error| Stop::Server(format!("gave a file that {}", error.kind)))?;
        match theirs.build_id() {
            Some(theirs) if theirs == id => {}
            Some(theirs) => {
                return Err(Stop::Server(format!("gave a file with build id {theirs}, asked for {id}")));
            }
            None => return Err(Stop::Server("gave a file without a build id".into())),
        }
        file.persist(path).map_err(|error| Stop::Cache(error.error))?;
        Ok(true)
    }

    fn copy(&self, mut from: impl Read, to: &mut File, cancel: &Cancel) -> Result<(), Stop> {
        let mut piece = vec![0; 256 << 10];
        loop {
            if cancel.is_cancelled() {
                return Err(Stop::Interrupted);
            }
            let count = match from.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Stop::Server(format!("broke off: {error}"))),
            };
            let bytes = piece.get(..count).unwrap_or_default();
            to.write_all(bytes).map_err(Stop::Cache)?;
            self.progress.advance(u64::try_from(count).unwrap_or(0));
        }
    }
}

enum Stop {
    Server(String),
    Cache(io::Error),
    Interrupted,
}
