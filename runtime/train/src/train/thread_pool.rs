//! A fixed set of threads that exist as long as the worker.
//!
//! libtorch keeps memory and settings per thread, so threads are reused. Each runs its kernels alone (one intra-op
//! thread): work is divided by the logical grid, never by a kernel.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::TrainError;

type ThreadTask = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
pub struct ThreadPool {
    inboxes: Vec<Sender<ThreadTask>>,
}

impl ThreadPool {
    /// # Errors
    /// [`TrainError::Thread`] if the system cannot start another thread.
    pub fn new(threads: usize) -> Result<Self, TrainError> {
        let mut inboxes = Vec::new();
        for index in 0..threads.max(1) {
            let (inbox, tasks) = channel::<ThreadTask>();
            let run = move || {
                tch::set_num_threads(1);
                let _guard = tch::no_grad_guard();
                for task in tasks {
                    task();
                }
            };
            let name = format!("kernels {index}");
            thread::Builder::new()
                .name(name)
                .spawn(run)
                .map_err(|source| TrainError::Thread { index, source })?;
            inboxes.push(inbox);
        }
        Ok(Self { inboxes })
    }

    pub fn threads(&self) -> usize {
        self.inboxes.len()
    }

    /// Runs `work` on every item, item `i` on thread `i` modulo the number of threads, and returns the results in the
    /// order of the items.
    ///
    /// # Errors
    /// [`TrainError::Panicked`] if a call panicked, after the others have ended.
    pub fn run<T, R>(&self, items: Vec<T>, work: impl Fn(T) -> R + Send + Sync + 'static) -> Result<Vec<R>, TrainError>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        let count = items.len();
        let work = Arc::new(work);
        let (sender, results) = channel();
        for (index, item) in items.into_iter().enumerate() {
            let (work, sender) = (Arc::clone(&work), sender.clone());
            let task: ThreadTask = Box::new(move || {
                let result = catch_unwind(AssertUnwindSafe(|| work(item)));
                // The closure's captures are dropped before the result is sent, so that the caller is their only owner.
                drop(work);
                let _ = sender.send((index, result));
            });
            let inbox = &self.inboxes[index % self.inboxes.len()];
            inbox
                .send(task)
                .map_err(|_| TrainError::Panicked("its inbox is closed".to_owned()))?;
        }
        drop(sender);
        let mut by_index: Vec<Option<R>> = (0..count).map(|_| None).collect();
        let mut panicked = None;
        for (index, result) in results {
            match result {
                Ok(result) => by_index[index] = Some(result),
                Err(payload) => panicked = Some(text(payload.as_ref())),
            }
        }
        if let Some(text) = panicked {
            return Err(TrainError::Panicked(text));
        }
        by_index
            .into_iter()
            .collect::<Option<Vec<R>>>()
            .ok_or_else(|| TrainError::Panicked("no result".to_owned()))
    }
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_a_panic_is_an_error() {
        let pool = ThreadPool::new(3).unwrap();
        let squares = pool.run((0..50u64).collect(), |i| i * i).unwrap();
        assert_eq!(squares, (0..50u64).map(|i| i * i).collect::<Vec<_>>());
        let error = pool.run(vec![1, 2], |i| assert!(i != 2, "two")).unwrap_err();
        assert_eq!(error.to_string(), "a thread of the worker panicked: two");
        assert_eq!(pool.run(vec![7], |i| i).unwrap(), [7]);
    }
}
