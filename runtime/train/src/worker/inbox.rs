//! Orders as they come in: a thread reads them, so that a stop is seen while a step runs.

use std::cell::Cell;
use std::io::{self, BufRead};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use aurora_runtime::job::{Event, Order};

use super::Events;

/// Ends the process at once. Other threads may be inside libtorch, so nothing is torn down in an orderly way: every
/// event has been flushed, and a file that is half-written is in a folder that nobody publishes.
pub fn end(status: i32) -> ! {
    #[cfg(unix)]
    // SAFETY: ends the process and runs nothing.
    unsafe {
        libc::_exit(status)
    }
    #[cfg(not(unix))]
    std::process::exit(status)
}

pub struct Inbox {
    orders: Receiver<Order>,
    stop: Arc<AtomicBool>,
    /// The stop that raised the flag has been taken out of the queue.
    taken: Cell<bool>,
}

impl Inbox {
    /// Starts reading. The process ends when the input ends, and at a second stop before the first is answered.
    ///
    /// # Errors
    /// The system's, if it gives no thread.
    pub fn open(events: &Events, input: Box<dyn BufRead + Send>) -> io::Result<Self> {
        let (sender, orders) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (flag, events) = (Arc::clone(&stop), events.clone());
        let read = move || {
            for line in input.lines() {
                let Ok(line) = line else { break };
                match serde_json::from_str::<Order>(&line) {
                    Ok(order) => {
                        if matches!(order, Order::Stop) && flag.swap(true, Ordering::SeqCst) {
                            end(1);
                        }
                        if sender.send(order).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        let cause = format!("an order that is none: {error}");
                        events.send(&Event::Failed {
                            node: String::new(),
                            cause,
                            peer: None,
                        });
                    }
                }
            }
            // The engine is gone, and with it whoever would publish what is being made here.
            end(0);
        };
        thread::Builder::new().name("orders".to_owned()).spawn(read)?;
        Ok(Self {
            orders,
            stop,
            taken: Cell::new(false),
        })
    }

    /// The next order; nothing if none can come.
    pub fn next(&self) -> Option<Order> {
        let order = self.orders.recv().ok();
        self.taken.set(matches!(order, Some(Order::Stop)));
        order
    }

    /// Raised by a stop.
    pub fn stop(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Drops what is queued, up to and with the stop, and lowers the flag.
    pub fn skip_to_stop(&self) {
        if !self.taken.get() {
            while let Ok(order) = self.orders.recv() {
                if matches!(order, Order::Stop) {
                    break;
                }
            }
        }
        self.stop.store(false, Ordering::SeqCst);
    }
}
