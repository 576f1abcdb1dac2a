//! Transfers between threads of one process, by copying bytes.
//!
//! For tests of a complete mesh in one process. Stricter than other transports: between two ranks, messages of one axis
//! arrive in the order in which they were sent regardless of their sizes, and an unexpected size is an error at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tch::Tensor;

use super::checks::{DROPPED, PeerBuffer, buffers, earlier, torch};
use super::{Axis, Transfer, Transport, TransportError};

/// One rank's end. After it is dropped, or after an error, its peers see it as lost.
#[derive(Debug)]
pub struct Channel {
    rank: usize,
    hub: Arc<ChannelHub>,
}

/// The connected ends of `size` ranks. A receive waits up to `transfer_timeout` for its message.
pub fn channels(size: usize, transfer_timeout: Duration) -> Vec<Channel> {
    let hub = Arc::new(ChannelHub {
        size,
        transfer_timeout,
        state: Mutex::new(ChannelState {
            queues: HashMap::new(),
            closed: vec![None; size],
        }),
        changed: Condvar::new(),
    });
    let end = |rank| Channel {
        rank,
        hub: Arc::clone(&hub),
    };
    (0..size).map(end).collect()
}

#[derive(Debug)]
struct ChannelHub {
    size: usize,
    transfer_timeout: Duration,
    state: Mutex<ChannelState>,
    changed: Condvar,
}

#[derive(Debug)]
struct ChannelState {
    /// By sender, receiver and axis.
    queues: HashMap<(usize, usize, Axis), MessageQueue>,
    /// By rank: the cause if its end is closed.
    closed: Vec<Option<String>>,
}

/// Messages and receives are numbered in the order in which they are started.
#[derive(Debug, Default)]
struct MessageQueue {
    sent: u64,
    expected: u64,
    messages: BTreeMap<u64, Tensor>,
}

impl ChannelHub {
    fn state(&self) -> MutexGuard<'_, ChannelState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes an end permanently; the first cause is kept.
    fn close(&self, rank: usize, cause: &str) {
        self.state().closed[rank].get_or_insert_with(|| cause.to_owned());
        self.changed.notify_all();
    }
}

impl Transport for Channel {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.hub.size
    }

    fn start(
        &self,
        axis: Axis,
        sends: &[(usize, &Tensor)],
        receives: &[(usize, &Tensor)],
    ) -> Result<Box<dyn Transfer>, TransportError> {
        let receives = buffers(self.rank, self.hub.size, receives)?;
        let mut messages = Vec::new();
        for PeerBuffer { peer, bytes, .. } in buffers(self.rank, self.hub.size, sends)? {
            let mut copy = bytes.f_empty_like().map_err(torch)?;
            copy.f_copy_(&bytes).map_err(torch)?;
            messages.push((peer, copy));
        }
        let mut state = self.hub.state();
        state.check(self.rank)?;
        let peers = messages.iter().map(|(peer, _)| *peer);
        if let Some(lost) = peers.into_iter().find_map(|peer| state.lost(peer)) {
            drop(state);
            self.hub.close(self.rank, &lost.to_string());
            return Err(lost);
        }
        for (peer, message) in messages {
            let queue = state.queues.entry((self.rank, peer, axis)).or_default();
            queue.messages.insert(queue.sent, message);
            queue.sent += 1;
        }
        let mut expected = Vec::new();
        for part in receives {
            let queue = state.queues.entry((part.peer, self.rank, axis)).or_default();
            expected.push((queue.expected, part));
            queue.expected += 1;
        }
        drop(state);
        self.hub.changed.notify_all();
        Ok(Box::new(ChannelTransfer {
            rank: self.rank,
            axis,
            hub: Arc::clone(&self.hub),
            expected,
        }))
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.hub.close(self.rank, "the transport was dropped");
    }
}

#[derive(Debug)]
struct ChannelTransfer {
    rank: usize,
    axis: Axis,
    hub: Arc<ChannelHub>,
    /// With the number of the message for each.
    expected: Vec<(u64, PeerBuffer)>,
}

impl Transfer for ChannelTransfer {
    fn wait(mut self: Box<Self>) -> Result<(), TransportError> {
        self.hub.state().check(self.rank)?;
        for (number, part) in std::mem::take(&mut self.expected) {
            if let Err(error) = self.receive(number, part) {
                self.hub.close(self.rank, &error.to_string());
                return Err(error);
            }
        }
        Ok(())
    }
}

impl ChannelTransfer {
    fn receive(&self, number: u64, mut part: PeerBuffer) -> Result<(), TransportError> {
        let (rank, peer, axis) = (self.rank, part.peer, self.axis);
        let queue = (peer, rank, axis);
        let arrived = |state: &ChannelState| {
            state
                .queues
                .get(&queue)
                .is_some_and(|queue| queue.messages.contains_key(&number))
        };
        let waits = |state: &mut ChannelState| !arrived(state) && state.closed[peer].is_none();
        let state = self.hub.state();
        let (mut state, _) = self
            .hub
            .changed
            .wait_timeout_while(state, self.hub.transfer_timeout, waits)
            .unwrap_or_else(PoisonError::into_inner);
        let message = state
            .queues
            .get_mut(&queue)
            .and_then(|queue| queue.messages.remove(&number));
        let Some(message) = message else {
            return Err(state.lost(peer).unwrap_or(TransportError::Silent {
                rank: peer,
                waited: self.hub.transfer_timeout,
            }));
        };
        drop(state);
        let (sent, expected) = (message.numel(), part.length);
        if sent != expected {
            return Err(TransportError::Other(format!(
                "rank {peer} sent {sent} bytes where rank {rank} expects {expected} ({axis:?})"
            )));
        }
        part.bytes.f_copy_(&message).map_err(torch)
    }
}

impl Drop for ChannelTransfer {
    fn drop(&mut self) {
        if !self.expected.is_empty() {
            self.hub.close(self.rank, DROPPED);
        }
    }
}

impl ChannelState {
    /// Fails if a rank's own end is closed.
    fn check(&self, rank: usize) -> Result<(), TransportError> {
        match &self.closed[rank] {
            None => Ok(()),
            Some(cause) => Err(earlier(cause)),
        }
    }

    fn lost(&self, rank: usize) -> Option<TransportError> {
        let cause = self.closed[rank].clone()?;
        Some(TransportError::Lost { rank, cause })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;
    use tch::{Device, Kind};

    use super::*;

    const PATIENT: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    fn zeros(count: usize) -> Tensor {
        Tensor::zeros([count as i64], (Kind::Float, Device::Cpu))
    }

    fn pair(transfer_timeout: Duration) -> (Channel, Channel) {
        let mut ends = channels(2, transfer_timeout).into_iter();
        (ends.next().unwrap(), ends.next().unwrap())
    }

    fn axis() -> impl Strategy<Value = Axis> {
        prop_oneof![
            Just(Axis::Tensor),
            Just(Axis::Forward),
            Just(Axis::Backward),
            Just(Axis::Data),
            Just(Axis::World)
        ]
    }

    proptest! {
        /// Every rank, on a thread, starts its part of all messages and then waits for them, last first.
        #[test]
        fn every_message_arrives_at_its_receiver(
            size in 2usize..5,
            drawn in prop::collection::vec((0usize..4, 1usize..4, axis(), 0usize..300), 1..40),
        ) {
            let message = |(from, by, axis, count): (usize, usize, Axis, usize)| {
                let from = from % size;
                (from, (from + 1 + by % (size - 1)) % size, axis, count)
            };
            let messages: Vec<_> = drawn.into_iter().map(message).collect();
            let content = |number: usize, count: usize| zeros(count) + number as f64;
            thread::scope(|scope| {
                for end in channels(size, PATIENT) {
                    let messages = &messages;
                    scope.spawn(move || {
                        let mut started = Vec::new();
                        for (number, (from, to, axis, count)) in messages.iter().enumerate() {
                            if *from == end.rank() {
                                let mut sent = content(number, *count);
                                started.push((end.start(*axis, &[(*to, &sent)], &[]).unwrap(), None));
                                // The message was copied when the transfer was started.
                                let _ = sent.zero_();
                            }
                            if *to == end.rank() {
                                let into = zeros(*count);
                                let transfer = end.start(*axis, &[], &[(*from, &into)]).unwrap();
                                started.push((transfer, Some((number, into))));
                            }
                        }
                        for (transfer, received) in started.into_iter().rev() {
                            transfer.wait().unwrap();
                            if let Some((number, into)) = received {
                                assert!(into.equal(&content(number, into.numel())), "message {number}");
                            }
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn invalid_transfers_are_refused_without_effect() {
        let (a, b) = pair(PATIENT);
        let table = Tensor::zeros([3, 4], (Kind::Float, Device::Cpu));
        let error = a.exchange(Axis::Data, &[(1, &table.tr())], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot send a tensor of shape [4, 3], which is not contiguous"
        );
        for peer in [0, 2] {
            let error = a.exchange(Axis::Data, &[], &[(peer, &table)]).unwrap_err();
            let text = format!("transfer failed: rank 0 of 2 cannot exchange tensors with rank {peer}");
            assert_eq!(error.to_string(), text);
        }
        a.exchange(Axis::Data, &[(1, &(&table + 1))], &[]).unwrap();
        b.exchange(Axis::Data, &[], &[(0, &table)]).unwrap();
        assert!(table.equal(&table.ones_like()));
    }

    #[test]
    fn sizes_must_agree() {
        let (a, b) = pair(PATIENT);
        a.exchange(Axis::Data, &[(1, &zeros(2))], &[]).unwrap();
        let error = b.exchange(Axis::Data, &[], &[(0, &zeros(3))]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "transfer failed: rank 0 sent 8 bytes where rank 1 expects 12 (Data)"
        );
        let later = b.exchange(Axis::Data, &[(0, &zeros(1))], &[]).unwrap_err();
        assert!(
            later
                .to_string()
                .starts_with("transfer failed: an earlier transfer failed: transfer failed: rank 0 sent")
        );
        assert!(matches!(
            a.exchange(Axis::Data, &[], &[(1, &zeros(1))]),
            Err(TransportError::Lost { rank: 1, .. })
        ));
    }

    #[test]
    fn a_rank_that_does_not_send_is_silent() {
        let (a, _b) = pair(SHORT);
        let error = a.exchange(Axis::Data, &[], &[(1, &zeros(1))]).unwrap_err();
        assert_eq!(error.to_string(), "rank 1 did not answer for 0.02 s");
    }

    #[test]
    fn messages_of_a_lost_rank_still_arrive() {
        let (a, b) = pair(PATIENT);
        a.exchange(Axis::Data, &[(1, &zeros(1))], &[]).unwrap();
        thread::scope(|scope| {
            let first = b.start(Axis::Data, &[], &[(0, &zeros(1))]).unwrap();
            let second = b.start(Axis::Data, &[], &[(0, &zeros(1))]).unwrap();
            scope.spawn(move || drop(a));
            first.wait().unwrap();
            let error = second.wait().unwrap_err();
            assert_eq!(error.to_string(), "lost rank 0 (the transport was dropped)");
        });
    }

    #[test]
    fn an_abandoned_receive_closes_the_end() {
        let (a, b) = pair(PATIENT);
        drop(a.start(Axis::Data, &[], &[(1, &zeros(1))]).unwrap());
        let error = a.exchange(Axis::Data, &[(1, &zeros(1))], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "transfer failed: an earlier transfer failed: the transfer was dropped before it completed"
        );
        let error = b.exchange(Axis::Data, &[(0, &zeros(1))], &[]).unwrap_err();
        assert!(matches!(error, TransportError::Lost { rank: 0, .. }));
    }
}
