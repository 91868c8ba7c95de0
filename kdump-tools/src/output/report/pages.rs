//! Pages that are written while the analyses still run: each as far as it can't change any more, and in the order of the dumps, so that
//! all of it together is the same text however fast each dump was.

use std::mem;
use std::sync::{Mutex, PoisonError};

use crate::exit::Failure;

/// Writes a piece of the answer.
type Write<'a> = Box<dyn Fn(&str) -> Result<(), Failure> + Send + Sync + 'a>;

/// The pages of several dumps on their way to a reader.
pub struct Pages<'a> {
    write: Write<'a>,
    /// What stands between two pages.
    rule: String,
    state: Mutex<State>,
}

struct State {
    /// What is known of each page.
    pages: Vec<Page>,
    /// The page that is being written.
    at: usize,
    /// What was written of it.
    written: String,
    /// The first write that failed; nothing is written after it.
    failed: Option<Failure>,
}

#[derive(Clone, Default)]
struct Page {
    text: String,
    whole: bool,
}

impl<'a> Pages<'a> {
    /// So many pages, with `rule` between them.
    pub fn new(
        count: usize,
        rule: String,
        write: impl Fn(&str) -> Result<(), Failure> + Send + Sync + 'a,
    ) -> Self {
        let pages = vec![Page::default(); count];
        let state = State { pages, at: 0, written: String::new(), failed: None };
        Self { write: Box::new(write), rule, state: Mutex::new(state) }
    }

    /// The page of dump `number` begins with this text.
    pub fn begins(&self, number: usize, text: String) {
        self.set(number, Page { text, whole: false });
    }

    /// This is all of the page of dump `number`.
    pub fn is_whole(&self, number: usize, text: String) {
        self.set(number, Page { text, whole: true });
    }

    /// Nothing more will come.
    ///
    /// # Errors
    /// The first write that failed.
    pub fn end(self) -> Result<(), Failure> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.failed.map_or(Ok(()), Err)
    }

    fn set(&self, number: usize, page: Page) {
        // A thread that panicked here leaves pages that can be written all the same.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = state.pages.get_mut(number) {
            *known = page;
        }
        while self.go_on(&mut state) {}
    }

    /// Writes what is new of the present page; true where the next one may have something too.
    fn go_on(&self, state: &mut State) -> bool {
        let Some(page) = state.pages.get_mut(state.at) else { return false };
        let text = mem::take(&mut page.text);
        let new = match text.strip_prefix(&state.written) {
            Some(new) => new.to_owned(),
            None if page.whole => {
                // What came first was wrong after all: what is whole is said in full, below it.
                format!("{}{text}", self.rule)
            }
            None => return false,
        };
        let last = state.at + 1 == state.pages.len();
        let whole = state.pages.get(state.at).is_some_and(|page| page.whole);
        let end = if whole && !last { self.rule.as_str() } else { "" };
        let piece = new + end;
        if state.failed.is_none() && !piece.is_empty() {
            state.failed = (self.write)(&piece).err();
        }
        if whole {
            state.at += 1;
            state.written.clear();
        } else {
            state.written = text;
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written, piece by piece.
    fn written(count: usize, work: impl FnOnce(&Pages<'_>)) -> Vec<String> {
        let seen = Mutex::new(Vec::new());
        let pages = Pages::new(count, "--".into(), |text| {
            seen.lock().unwrap().push(text.to_owned());
            Ok(())
        });
        work(&pages);
        pages.end().unwrap();
        seen.into_inner().unwrap()
    }

    #[test]
    fn a_page_is_written_as_far_as_it_is_known() {
        let seen = written(1, |pages| {
            pages.begins(0, "PANIC\n".into());
            pages.begins(0, "PANIC\non CPU 1\n".into());
            pages.is_whole(0, "PANIC\non CPU 1\nand so on\n".into());
        });
        assert_eq!(seen, ["PANIC\n", "on CPU 1\n", "and so on\n"]);
    }

    #[test]
    fn pages_come_in_the_order_of_the_dumps_whichever_is_ready_first() {
        let seen = written(3, |pages| {
            pages.is_whole(2, "third".into());
            pages.begins(1, "sec".into());
            pages.begins(0, "fi".into());
            pages.is_whole(0, "first".into());
            pages.is_whole(1, "second".into());
        });
        assert_eq!(seen, ["fi", "rst--", "sec", "ond--", "third"]);
    }

    #[test]
    fn a_beginning_that_was_wrong_is_followed_by_the_whole_page() {
        let seen = written(1, |pages| {
            pages.begins(0, "PANIC".into());
            pages.is_whole(0, "NOT USABLE".into());
        });
        assert_eq!(seen.concat(), "PANIC--NOT USABLE");
    }

    #[test]
    fn after_a_write_that_failed_nothing_is_written() {
        let count = Mutex::new(0);
        let pages = Pages::new(1, String::new(), |_| {
            *count.lock().unwrap() += 1;
            Err(Failure::internal("the disk is full".to_owned()))
        });
        pages.begins(0, "a".into());
        pages.is_whole(0, "ab".into());
        assert!(pages.end().is_err());
        assert_eq!(count.into_inner().unwrap(), 1);
    }
}
