//! Loops on several threads, with results that depend on no thread.
//!
//! Every result is that of one index or one part, in order. So the mathematics above may use these loops and stays a
//! function of its inputs alone. Loops run on the threads of the caller's pool.
//!
//! Work below [`until`] ends early if its caller asks: the loops, and searches that call [`check`], unwind their threads
//! to there, as a panic would, but without a message.

use rayon::prelude::*;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};

/// Asks whether work should end, and why: a number that the caller knows.
pub type Stop = fn() -> Option<i32>;

/// The answer that ended work.
struct Ended(i32);

thread_local! {
    /// What the work of this thread asks.
    static STOP: Cell<Option<Stop>> = const { Cell::new(None) };
}

/// Does work that ends early once `stop` gives a number.
///
/// # Errors
///
/// That number.
pub fn until<T>(stop: Stop, work: impl FnOnce() -> T) -> Result<T, i32> {
    panic::catch_unwind(AssertUnwindSafe(|| asking(Some(stop), work))).map_err(|thrown| {
        match thrown.downcast::<Ended>() {
            Ok(ended) => ended.0,
            Err(panic) => panic::resume_unwind(panic),
        }
    })
}

/// Ends the work of this thread if the caller of [`until`] asks for it.
pub fn check() {
    if let Some(why) = STOP.get().and_then(|stop| stop()) {
        panic::resume_unwind(Box::new(Ended(why)));
    }
}

/// Does work that asks `stop`, and asks once before.
fn asking<T>(stop: Option<Stop>, work: impl FnOnce() -> T) -> T {
    /// Sets back what the thread asked, also when the work unwinds: the thread may do other work in between.
    struct Before(Option<Stop>);
    impl Drop for Before {
        fn drop(&mut self) {
            STOP.set(self.0);
        }
    }
    let _before = Before(STOP.replace(stop));
    check();
    work()
}

/// The results of `of` for each index below `count`, in order. `work` is the number of additions that one index takes,
/// about: a loop with little work stays on one thread.
pub fn map<T: Send>(count: usize, work: usize, of: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let stop = STOP.get();
    if is_little(count, work) {
        check();
        return (0..count).map(of).collect();
    }
    (0..count).into_par_iter().with_max_len(longest(count)).map(|k| asking(stop, || of(k))).collect()
}

/// Calls `of` on parts of `len` values, with the index of the first value of each. `work` is the number of additions
/// that one part takes, about.
pub fn for_each_part<T: Send>(
    values: &mut [T],
    len: usize,
    work: usize,
    of: impl Fn(usize, &mut [T]) + Sync,
) {
    let (count, stop) = (values.len().div_ceil(len), STOP.get());
    if is_little(count, work) {
        check();
        return values.chunks_mut(len).enumerate().for_each(|(part, values)| of(part * len, values));
    }
    let parts = values.par_chunks_mut(len).with_max_len(longest(count));
    parts.enumerate().for_each(|(part, values)| asking(stop, || of(part * len, values)));
}

/// Calls `of` with each item and its index. `work` is the number of additions that one item takes, about.
pub fn for_each<T: Send>(items: Vec<T>, work: usize, of: impl Fn(usize, T) + Sync) {
    let stop = STOP.get();
    if is_little(items.len(), work) {
        check();
        return items.into_iter().enumerate().for_each(|(k, item)| of(k, item));
    }
    let most = longest(items.len());
    items.into_par_iter().with_max_len(most).enumerate().for_each(|(k, item)| asking(stop, || of(k, item)));
}

/// Whether the work is less than what it takes to wake threads.
fn is_little(count: usize, work: usize) -> bool {
    count < 2 || count.saturating_mul(work) < 1 << 17
}

/// The longest run of indices that one thread takes at once, so that threads end together.
fn longest(count: usize) -> usize {
    count.div_ceil(16 * rayon::current_num_threads())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_with_any_work() {
        for work in [0, 1 << 20] {
            assert_eq!(map(1000, work, |i| i * i), (0..1000).map(|i| i * i).collect::<Vec<_>>());
            let mut values = vec![0.0; 103];
            for_each_part(&mut values, 10, work, |start, part| {
                part.iter_mut().enumerate().for_each(|(k, x)| *x = (start + k) as f64);
            });
            assert!(values.iter().enumerate().all(|(k, x)| *x == k as f64));
            for_each(values.iter_mut().collect(), work, |k, x: &mut f64| *x -= k as f64);
            assert_eq!(values, [0.0; 103]);
        }
    }

    #[test]
    fn work_ends_on_every_thread_when_its_caller_asks() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let stop: Stop = || (ASKED.fetch_add(1, Ordering::Relaxed) >= 100).then_some(15);
        let done = AtomicUsize::new(0);
        let ended = until(stop, || {
            map(1_000_000, 1 << 20, |_| done.fetch_add(1, Ordering::Relaxed));
        });
        assert_eq!(ended, Err(15));
        assert!(done.into_inner() < 1000);
        // The same threads do other work to its end.
        assert_eq!(map(1000, 1 << 20, |i| i).len(), 1000);
        assert_eq!(until(|| None, || map(3, 1, |i| i)), Ok(vec![0, 1, 2]));
    }

    #[test]
    #[should_panic(expected = "a fault")]
    fn panics_pass_through() {
        let _ = until(|| None, || map(1000, 1 << 20, |_| panic!("a fault")));
    }
}
