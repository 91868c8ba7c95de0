//! What every opened dump must hold to.

use std::sync::Arc;

use vmcore::addr::Pfn;
use vmcore::error::{OpenError, PageError};
use vmcore::{Dump, OpenOptions, PageState, PhysicalMemory};

pub(crate) fn open(bytes: Vec<u8>) -> Result<Dump, OpenError> {
    Dump::from_source(Arc::new(bytes), "vmcore", &OpenOptions::default())
}

/// Reads every frame and checks that what the dump tells of itself agrees with that. Gives what was read.
pub(crate) fn read_all(dump: &Dump) -> Vec<(u64, Vec<u8>)> {
    let mut pages = Vec::new();
    let (mut present, mut excluded, mut lost) = (0, 0, 0);
    let mut buf = vec![0; dump.page_size() as usize];
    let mut next = Pfn(0);
    // Hostile headers may announce frames without end.
    for _ in 0..10_000 {
        let Some(pfn) = dump.next_frame(next) else { break };
        next = Pfn(pfn.0 + 1);
        let state = dump.state(pfn);
        let result = dump.read_frame(pfn, &mut buf);
        match (state, result) {
            (PageState::Present, Ok(_)) => {
                present += 1;
                pages.push((pfn.0, buf.clone()));
            }
            (PageState::Present, Err(PageError::Corrupt { .. })) => present += 1,
            (PageState::Excluded, Err(PageError::Excluded { .. })) => excluded += 1,
            (PageState::Lost, Err(PageError::Lost { .. })) => lost += 1,
            (state, result) => panic!("{pfn} is {state:?} and reads as {result:?}"),
        }
    }
    let told = dump.completeness();
    assert_eq!(told.announced_pages, told.present_pages + told.excluded_pages + told.lost_pages);
    if told.announced_pages < 10_000 {
        assert_eq!((told.present_pages, told.excluded_pages, told.lost_pages), (present, excluded, lost));
    }
    pages
}
