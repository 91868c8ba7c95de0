//! How small and how soon: compresses a sample and says what the whole will be.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::compress::new_compressor;
use super::digest::Digest;
use super::error::PackError;
use super::plan::PackPlan;

/// Bytes of one look at an artifact.
const LOOK: u64 = 256 << 10;
/// Looks at all artifacts together, so that an estimate takes a fraction of a second.
const LOOKS: u64 = 64;

/// What packing will come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Estimate {
    /// Bytes that will be read.
    pub input_bytes: u64,
    /// Bytes that the parts will have.
    pub packed_bytes: u64,
    /// How many parts there will be.
    pub parts: u64,
    /// How long it will take, where compression and not the disk is the limit.
    pub time: Duration,
    /// Whether the sample was the whole.
    pub exact: bool,
}

/// Compresses places spread evenly over the artifacts, and reckons from them.
///
/// # Errors
/// An artifact can't be read.
pub fn estimate(plan: &PackPlan) -> Result<Estimate, PackError> {
    let input_bytes = plan.bytes();
    let stride = (input_bytes / LOOKS).max(LOOK);
    let unready = |source| PackError::target("compressing for", &plan.target, source);
    let mut compressor = new_compressor(plan.level).map_err(unready)?;
    let mut buf = vec![0; usize::try_from(LOOK).unwrap_or_default()];
    let (mut seen, mut packed, mut spent) = (0_u64, 0_u64, Duration::ZERO);
    // The place of the next look, counted from the start of the artifact at hand.
    let mut next = 0_u64;
    for artifact in &plan.artifacts {
        let failed =
            |source: io::Error, at| PackError::Source { path: artifact.path.clone(), at: Some(at), source };
        if next < artifact.size {
            let file = File::open(&artifact.path).map_err(|e| failed(e, 0))?;
            while next < artifact.size {
                let got = file.read_at(&mut buf, next).map_err(|e| failed(e, next))?;
                let look = buf.get(..got).unwrap_or_default();
                let start = Instant::now();
                let small = compressor.compress(look).map_err(unready)?;
                // The digest costs too.
                std::hint::black_box(Digest::of(look));
                spent = spent.saturating_add(start.elapsed());
                seen = seen.saturating_add(u64::try_from(got).unwrap_or(0));
                packed = packed.saturating_add(u64::try_from(small.len()).unwrap_or(0));
                next = next.saturating_add(stride);
            }
        }
        next = next.saturating_sub(artifact.size);
    }
    let scale = |part: u128| {
        let whole = u128::from(input_bytes).saturating_mul(part).checked_div(u128::from(seen)).unwrap_or(0);
        u64::try_from(whole).unwrap_or(u64::MAX)
    };
    let overhead = plan.layout.total.saturating_sub(input_bytes) >> 3;
    let packed_bytes = scale(u128::from(packed)).saturating_add(overhead);
    let jobs = u64::try_from(plan.jobs).unwrap_or(1).min(cores()).max(1);
    let nanos = scale(spent.as_nanos()).checked_div(jobs).unwrap_or(0);
    let reports = u64::from(plan.reports_end > 0 && plan.reports_end < plan.layout.total);
    Ok(Estimate {
        input_bytes,
        packed_bytes,
        parts: packed_bytes.div_ceil(plan.part_size).max(1).saturating_add(reports),
        time: Duration::from_nanos(nanos),
        exact: seen == input_bytes,
    })
}

fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| u64::try_from(cores.get()).unwrap_or(1))
}
