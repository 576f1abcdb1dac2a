//! Transfers between threads of one process, by copying bytes.
//!
//! For tests of a whole mesh in one process. Stricter than other transports: between two ranks, messages of one axis
//! arrive in the order in which they were sent whatever their sizes, and a size that was not expected is an error at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tch::Tensor;

use super::checks::{DROPPED, Part, earlier, parts, torch};
use super::{Axis, Transfer, Transport, TransportError};

/// One rank's end. When it is dropped, or after an error, its peers see it gone.
#[derive(Debug)]
pub struct Channel {
    rank: usize,
    hub: Arc<Hub>,
}

/// The connected ends of `size` ranks. A receive waits for its message for at most `limit`.
pub fn channels(size: usize, limit: Duration) -> Vec<Channel> {
    let hub = Arc::new(Hub {
        size,
        limit,
        state: Mutex::new(State {
            lanes: HashMap::new(),
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
struct Hub {
    size: usize,
    limit: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// By sender, receiver and axis.
    lanes: HashMap<(usize, usize, Axis), Lane>,
    /// By rank: why its end is closed.
    closed: Vec<Option<String>>,
}

/// Messages and receives are numbered as they are started.
#[derive(Debug, Default)]
struct Lane {
    sent: u64,
    asked: u64,
    messages: BTreeMap<u64, Tensor>,
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes an end for good; the first cause stays.
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
        let receives = parts(self.rank, self.hub.size, receives)?;
        let mut messages = Vec::new();
        for Part { peer, bytes, .. } in parts(self.rank, self.hub.size, sends)? {
            let mut copy = bytes.f_empty_like().map_err(torch)?;
            copy.f_copy_(&bytes).map_err(torch)?;
            messages.push((peer, copy));
        }
        let mut state = self.hub.state();
        state.check(self.rank)?;
        let peers = messages.iter().map(|(peer, _)| *peer);
        if let Some(gone) = peers.into_iter().find_map(|peer| state.gone(peer)) {
            drop(state);
            self.hub.close(self.rank, &gone.to_string());
            return Err(gone);
        }
        for (peer, message) in messages {
            let lane = state.lanes.entry((self.rank, peer, axis)).or_default();
            lane.messages.insert(lane.sent, message);
            lane.sent += 1;
        }
        let mut expected = Vec::new();
        for part in receives {
            let lane = state.lanes.entry((part.peer, self.rank, axis)).or_default();
            expected.push((lane.asked, part));
            lane.asked += 1;
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
        self.hub.close(self.rank, "its end was dropped");
    }
}

#[derive(Debug)]
struct ChannelTransfer {
    rank: usize,
    axis: Axis,
    hub: Arc<Hub>,
    /// With the number of the message that each receives.
    expected: Vec<(u64, Part)>,
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
    fn receive(&self, number: u64, mut part: Part) -> Result<(), TransportError> {
        let (rank, peer, axis) = (self.rank, part.peer, self.axis);
        let lane = (peer, rank, axis);
        let arrived = |state: &State| {
            state
                .lanes
                .get(&lane)
                .is_some_and(|lane| lane.messages.contains_key(&number))
        };
        let waits = |state: &mut State| !arrived(state) && state.closed[peer].is_none();
        let state = self.hub.state();
        let (mut state, _) = self
            .hub
            .changed
            .wait_timeout_while(state, self.hub.limit, waits)
            .unwrap_or_else(PoisonError::into_inner);
        let message = state
            .lanes
            .get_mut(&lane)
            .and_then(|lane| lane.messages.remove(&number));
        let Some(message) = message else {
            return Err(state.gone(peer).unwrap_or(TransportError::Silent {
                rank: peer,
                waited: self.hub.limit,
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

impl State {
    /// Whether a rank's own end is open.
    fn check(&self, rank: usize) -> Result<(), TransportError> {
        match &self.closed[rank] {
            None => Ok(()),
            Some(cause) => Err(earlier(cause)),
        }
    }

    fn gone(&self, rank: usize) -> Option<TransportError> {
        let cause = self.closed[rank].clone()?;
        Some(TransportError::Gone { rank, cause })
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

    fn pair(limit: Duration) -> (Channel, Channel) {
        let mut ends = channels(2, limit).into_iter();
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
        /// Every rank on its thread starts its part of all messages and then waits for them, last first.
        #[test]
        fn every_message_arrives_where_it_was_meant(
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
                                // It was copied when it was started.
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
    fn a_transfer_that_cannot_be_is_refused_and_harms_nothing() {
        let (a, b) = pair(PATIENT);
        let table = Tensor::zeros([3, 4], (Kind::Float, Device::Cpu));
        let error = a.exchange(Axis::Data, &[(1, &table.tr())], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a tensor of shape [4, 3] has gaps and cannot be sent as it stands"
        );
        for peer in [0, 2] {
            let error = a.exchange(Axis::Data, &[], &[(peer, &table)]).unwrap_err();
            let text = format!("transfer failed: rank 0 of 2 cannot exchange tensors with rank {peer}");
            assert_eq!(error.to_string(), text);
        }
        a.exchange(Axis::Data, &[(1, &(&table + 1))], &[]).unwrap();
        b.exchange(Axis::Data, &[], &[(0, &table)]).unwrap();
        assert!(table.equal(&table.ones_like()));
        assert!(!a.sum(Axis::World, &table).unwrap());
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
                .starts_with("transfer failed: an earlier one failed: transfer failed: rank 0 sent")
        );
        assert!(matches!(
            a.exchange(Axis::Data, &[], &[(1, &zeros(1))]),
            Err(TransportError::Gone { rank: 1, .. })
        ));
    }

    #[test]
    fn who_does_not_send_is_silent() {
        let (a, _b) = pair(SHORT);
        let error = a.exchange(Axis::Data, &[], &[(1, &zeros(1))]).unwrap_err();
        assert_eq!(error.to_string(), "rank 1 has not answered for 0.02 s");
    }

    #[test]
    fn who_was_dropped_has_gone_but_what_it_sent_arrives() {
        let (a, b) = pair(PATIENT);
        a.exchange(Axis::Data, &[(1, &zeros(1))], &[]).unwrap();
        thread::scope(|scope| {
            let first = b.start(Axis::Data, &[], &[(0, &zeros(1))]).unwrap();
            let second = b.start(Axis::Data, &[], &[(0, &zeros(1))]).unwrap();
            scope.spawn(move || drop(a));
            first.wait().unwrap();
            let error = second.wait().unwrap_err();
            assert_eq!(error.to_string(), "rank 0 has gone (its end was dropped)");
        });
    }

    #[test]
    fn an_abandoned_receive_closes_the_end() {
        let (a, b) = pair(PATIENT);
        drop(a.start(Axis::Data, &[], &[(1, &zeros(1))]).unwrap());
        let error = a.exchange(Axis::Data, &[(1, &zeros(1))], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "transfer failed: an earlier one failed: it was dropped before its end"
        );
        let error = b.exchange(Axis::Data, &[(0, &zeros(1))], &[]).unwrap_err();
        assert!(matches!(error, TransportError::Gone { rank: 0, .. }));
    }
}
