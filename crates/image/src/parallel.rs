//! Several blobs at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};

/// So many threads work at once.
const THREADS: usize = 4;

/// Does the work for each item. When it fails for one, the others stop; every thread has ended when this returns.
pub(crate) fn for_each<T: Sync>(
    items: &[T],
    work: impl Fn(&T, &Cancel) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let cancel = Cancel::default();
    let failed = Mutex::new(None);
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = cancel.check().and_then(|()| work(item, &cancel)) {
                // The first failure is the reason; the others follow from it.
                let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.get_or_insert(error);
                cancel.cancel();
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..THREADS.min(items.len()) {
            scope.spawn(run);
        }
        run();
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Lets the threads of one transfer end when one of them has failed, also those that wait for another try.
#[derive(Debug, Default)]
pub(crate) struct Cancel {
    cancelled: Mutex<bool>,
    changed: Condvar,
}

impl Cancel {
    pub(crate) fn cancel(&self) {
        *self
            .cancelled
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// An error once somebody has cancelled. It is never shown: the one who cancelled has the reason.
    pub(crate) fn check(&self) -> Result<()> {
        self.wait(Duration::ZERO)
    }

    /// Waits this long, or until somebody cancels.
    pub(crate) fn wait(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        let mut cancelled = self
            .cancelled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if *cancelled {
                return Err(Error::new(Kind::Failed, "cancelled"));
            }
            if left.is_zero() {
                return Ok(());
            }
            cancelled = self
                .changed
                .wait_timeout(cancelled, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_ends_all_that_wait() {
        let begun = Instant::now();
        let result = for_each(&[0, 1, 2, 3], |item, cancel| match item {
            2 => Err(Error::invalid("two")),
            _ => cancel.wait(Duration::from_secs(600)),
        });
        assert_eq!(result.unwrap_err().to_string(), "two");
        assert!(begun.elapsed() < Duration::from_secs(300));
    }

    #[test]
    fn every_item_has_its_turn() {
        let sum = AtomicUsize::new(0);
        let add = |item: &usize, _: &Cancel| {
            sum.fetch_add(*item, Ordering::Relaxed);
            Ok(())
        };
        for_each(&(0..100).collect::<Vec<_>>(), add).unwrap();
        assert_eq!(sum.into_inner(), 4950);
        for_each(&[], |_: &(), _| unreachable!()).unwrap();
    }
}
