//! Erasing: what is asked for, the proof that it is gone, and the account of it (`DST.scrub.json`).

use std::fmt::Write as _;
use std::path::Path;

use vmcore::filter::Classes;
use vmcore::kernel::Kernel;
use vmcore::limits::Limits;
use vmcore::mem::{Dump, OpenOptions};
use vmcore::report::{CanaryHit, CanarySearch, SCRUB_SCHEMA, ScrubAccount, ScrubAudit, ScrubOutput};
use vmcore::scrub::{self, Account, Canary, FILL, Found, Pattern, Plan, Wanted, What};
use vmcore::write::Texts;

use super::{Done, Shape, Target};
use crate::cli::{Context, tool};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::human;
use crate::output::progress::Piece;
use crate::size::Size;

/// What is to be erased.
#[derive(Debug, Default, clap::Args)]
pub(in crate::cli) struct Scrubbing {
    /// Erase what must not leave the house, by the kernel's own objects: user, args, keys, net, tty, pipes, names, or all, which is
    /// all but names. What was erased, and what could not be, is in DST.scrub.json; exit code 4 where something could not
    #[arg(long, value_delimiter = ',', value_name = "WHAT", value_parser = word)]
    scrub: Vec<Word>,
    /// Erase this text wherever it is
    #[arg(long, value_name = "TEXT")]
    scrub_text: Vec<String>,
    /// Erase what this regular expression matches, wherever it is
    #[arg(long, value_name = "RE")]
    scrub_regex: Vec<String>,
    /// A text that must not be in the new dump: it is read back and searched, and gets no name where the text is found (exit code 5)
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    canary: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Word {
    All,
    One(What),
}

fn word(text: &str) -> Result<Word, String> {
    if text == "all" {
        return Ok(Word::All);
    }
    // Texts have options of their own.
    let words = || What::ALL.into_iter().filter(|what| *what != What::Strings);
    words().find(|what| what.name() == text).map(Word::One).ok_or_else(|| {
        let words: Vec<&str> = words().map(What::name).collect();
        format!("it is one of {}, all", words.join(", "))
    })
}

impl Scrubbing {
    /// What was asked for; `None` where nothing was.
    ///
    /// # Errors
    /// Where a pattern can't be looked for.
    pub(in crate::cli) fn wanted(&self) -> Result<Option<Wanted>, Failure> {
        let mut wanted = Wanted::default();
        for word in &self.scrub {
            match word {
                Word::All => wanted.what.extend(
                    What::ALL.into_iter().filter(|what| !matches!(what, What::Names | What::Strings)),
                ),
                Word::One(what) => drop(wanted.what.insert(*what)),
            }
        }
        let patterns = self.scrub_text.iter().map(|text| Pattern::text(text));
        for pattern in patterns.chain(self.scrub_regex.iter().map(|text| Pattern::regex(text))) {
            let pattern = pattern.map_err(|why| {
                Failure::usage(
                    format!("what is to be erased can't be looked for: {why}"),
                    "name at least one byte with --scrub-text, or mend the expression of --scrub-regex",
                )
            })?;
            wanted.patterns.push(pattern);
        }
        Ok((!wanted.is_empty() || !self.canary.is_empty()).then_some(wanted))
    }
}

/// What is erased from one dump, and what must not be there then.
pub(in crate::cli) struct Scrub {
    pub(super) plan: Plan,
    canaries: Vec<Canary>,
}

impl Scrub {
    /// Plans it where something is wanted, takes what is not written at all out of `classes`, and names in `texts` what is erased.
    ///
    /// # Errors
    /// Where it was interrupted.
    #[expect(clippy::too_many_arguments, reason = "one call, and each is a thing of its own")]
    pub(in crate::cli) fn plan(
        wanted: Option<&Wanted>,
        dump: &Dump,
        kernel: &Kernel<'_>,
        classes: &mut Classes,
        texts: &mut Texts,
        shape: &Shape,
        context: &Context,
        progress: &Piece,
    ) -> Result<Option<Self>, Failure> {
        let Some(wanted) = wanted else { return Ok(None) };
        let watch = (&context.cancel, progress as &dyn vmcore::progress::Progress);
        let plan = scrub::plan(dump, kernel, classes, wanted, &Limits::default(), watch);
        if context.cancel.is_cancelled() {
            return Err(Failure::interrupted());
        }
        erase_beside(wanted, texts);
        for account in &plan.accounts {
            tell(account, context);
        }
        let info = plan.erase_info();
        if !info.is_empty() {
            texts.erased = Some(texts.erased.take().unwrap_or_default() + &info);
            if shape.elf {
                texts.add("ERASEINFO", 0, info.as_bytes());
            }
        }
        let named = shape.scrubbing.canary.iter().map(|text| Canary::named(text));
        let canaries = named.chain(plan.samples.iter().cloned()).collect();
        Ok(Some(Self { plan, canaries }))
    }

    /// Reads back what was written to `path`, which is to be called `name`, and searches it.
    ///
    /// # Errors
    /// Where something is there that must not be, or where it can't be searched.
    pub(super) fn prove(
        &self,
        path: &Path,
        name: &str,
        context: &Context,
        progress: &Piece,
    ) -> Result<CanarySearch, Failure> {
        let dump = Dump::open(path, &OpenOptions::default()).map_err(|why| {
            Failure::new(
                Exit::Verify,
                format!("{name} can't be read back to prove that nothing is left in it: {}", why.kind),
                "check this machine's memory and disk, and run it again",
            )
        })?;
        let watch = (&context.cancel, progress as &dyn vmcore::progress::Progress);
        let found = proven(&self.canaries, &scrub::search(&dump, &self.canaries, watch))?;
        if found.count == 0 {
            return Ok(found);
        }
        let first = found.hits.first().map(|hit| hit.canary);
        let canary = first.and_then(|number| self.canaries.get(usize::try_from(number).ok()?));
        let what = match canary.and_then(|canary| canary.sample_of) {
            Some(what) => format!("a copy of what --scrub {} erased", what.name()),
            None => first.map_or("a canary".into(), |number| format!("canary {}", number + 1)),
        };
        let places = found.hits.iter().take(5);
        let mut all: Vec<String> =
            places.map(|hit| format!("pfn {:#x} offset {:#x}", hit.pfn, hit.offset)).collect();
        if found.in_headers > 0 {
            all.push("the names and notes of its header".into());
        }
        let more = found.count.saturating_sub(5).saturating_sub(found.in_headers);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(Failure::new(
            Exit::Verify,
            format!("{what} is still there: {}{more} of what was to be {name}", all.join(", ")),
            "erase it too, with --scrub user, a higher level with -d, or --scrub-text; nothing was left under that name",
        ))
    }

    /// Writes the account, and says how it ended.
    ///
    /// # Errors
    /// Where the account can't be written.
    pub(in crate::cli) fn account_for(
        &self,
        done: &[Done],
        target: &Target,
        source: &Path,
        context: &Context,
        exit: Exit,
    ) -> Outcome {
        let proven = done.iter().all(|one| one.proof.as_ref().is_some_and(|proof| proof.unreadable == 0));
        let whole = self.plan.is_whole() && proven;
        let Target::File(path) = target else {
            context
                .output
                .warn("what went to stdout can't be read back: that nothing is left in it is not proven");
            return Ok(if exit == Exit::Done { Exit::Partial } else { exit });
        };
        let sampled = self.canaries.iter().filter(|canary| canary.sample_of.is_some()).count();
        let audit = ScrubAudit {
            schema: SCRUB_SCHEMA.into(),
            tool: tool(),
            source: source.display().to_string(),
            outputs: done.iter().map(output).collect(),
            fill: char::from(FILL).to_string(),
            whole,
            pages: self.plan.blanks.pages(),
            bytes: self.plan.blanks.bytes(),
            what: self.plan.accounts.iter().map(account).collect(),
            canaries_named: number(self.canaries.len() - sampled),
            canaries_sampled: number(sampled),
        };
        let text = serde_json::to_string_pretty(&audit)
            .map_err(|why| Failure::internal(format!("the account can't be put into words: {why}")))?;
        let mut side = path.as_os_str().to_owned();
        side.push(".scrub.json");
        crate::output::file::write(Path::new(&side), &(text + "\n"), &[source])?;
        let proofs = || done.iter().filter_map(|one| one.proof.as_ref());
        let pages: u64 = proofs().map(|proof| proof.pages).sum();
        let borders: u64 = proofs().map(|proof| proof.borders).sum();
        let proof = if self.canaries.is_empty() {
            "nothing of it is long enough to be looked for in what was written: name a text with --canary"
                .to_owned()
        } else {
            format!(
                "{} that must not be there looked for in {} read back and {} of them in virtual memory, and none found",
                human::plural(self.canaries.len(), "text"),
                human::plural(usize::try_from(pages).unwrap_or(usize::MAX), "page"),
                human::plural(usize::try_from(borders).unwrap_or(usize::MAX), "border"),
            )
        };
        if let Some(why) = proofs().flat_map(|proof| &proof.borders_lost).next() {
            context
                .output
                .note(&format!("not all borders of pages in virtual memory could be looked at: {why}"));
        }
        context.output.note(&format!(
            "{} erased on {}; {proof}; {}",
            Size::from(audit.bytes),
            human::plural(usize::try_from(audit.pages).unwrap_or(usize::MAX), "page"),
            Path::new(&side).display(),
        ));
        Ok(if exit == Exit::Done && !whole { Exit::Partial } else { exit })
    }
}

/// Erases named texts in what the dump says beside its pages.
fn erase_beside(wanted: &Wanted, texts: &mut Texts) {
    let names = &mut texts.utsname;
    for name in [
        &mut names.sysname,
        &mut names.nodename,
        &mut names.release,
        &mut names.version,
        &mut names.machine,
        &mut names.domainname,
    ] {
        let mut bytes = name.as_bytes().to_vec();
        if wanted.erase_in(&mut bytes) {
            *name = String::from_utf8_lossy(&bytes).into_owned();
        }
    }
    wanted.erase_in(&mut texts.notes);
    if let Some(erased) = texts.erased.take() {
        let mut bytes = erased.into_bytes();
        wanted.erase_in(&mut bytes);
        texts.erased = Some(String::from_utf8_lossy(&bytes).into_owned());
    }
}

/// What a search found, in the words of the report.
///
/// # Errors
/// Where it proves nothing.
pub(in crate::cli) fn proven(canaries: &[Canary], found: &Found) -> Result<CanarySearch, Failure> {
    match found.unproven {
        Some(_) if found.pages == 0 => {
            Err(Failure::usage("there are too many texts to look for", "give fewer of them with --canary"))
        }
        Some(_) => Err(Failure::interrupted()),
        None => Ok(CanarySearch {
            canaries: number(canaries.len()),
            pages: found.pages,
            unreadable: found.unreadable,
            borders: found.borders,
            borders_lost: found.borders_lost.clone(),
            count: found.count,
            in_headers: found.in_headers,
            hits: found
                .hits
                .iter()
                .map(|hit| CanaryHit { canary: number(hit.canary), pfn: hit.pfn, offset: hit.offset })
                .collect(),
        }),
    }
}

fn tell(account: &Account, context: &Context) {
    let mut text = format!(
        "{}: {} looked at, {} erased on {}",
        account.what.name(),
        human::plural(usize::try_from(account.objects).unwrap_or(usize::MAX), "object"),
        Size::from(account.bytes),
        human::plural(usize::try_from(account.pages).unwrap_or(usize::MAX), "page"),
    );
    if account.left_out > 0 {
        let _ = write!(text, ", {} pages not written at all", account.left_out);
    }
    if account.absent > 0 {
        let _ = write!(text, ", {} not in the new dump anyhow", Size::from(account.absent));
    }
    context.output.note(&text);
    for why in &account.not_scrubbed {
        context.output.warn(&format!("{} is not scrubbed: {why}", account.what.name()));
    }
    let more = account.not_scrubbed_count.saturating_sub(number(account.not_scrubbed.len()));
    if more > 0 {
        context.output.warn(&format!("{}: {more} more are not scrubbed", account.what.name()));
    }
}

fn account(account: &Account) -> ScrubAccount {
    ScrubAccount {
        what: account.what.name().into(),
        objects: account.objects,
        ranges: account.ranges,
        bytes: account.bytes,
        pages: account.pages,
        left_out_pages: account.left_out,
        absent_bytes: account.absent,
        not_scrubbed_count: account.not_scrubbed_count,
        not_scrubbed: account.not_scrubbed.clone(),
        limits: account.what.limits().iter().map(|limit| (*limit).to_owned()).collect(),
    }
}

fn output(done: &Done) -> ScrubOutput {
    ScrubOutput {
        name: done.name.clone(),
        bytes: done.bytes,
        sha256: done.digest.clone(),
        proof: done.proof.clone(),
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
