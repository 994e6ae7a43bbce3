//! Is the peer alive? (SPEC 4, life.) Any frame is life; a heartbeat that stays unanswered is death all the same,
//! because a peer that writes and never reads cannot serve.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::event::{Silence, Timers};

/// Sent heartbeats whose time of sending is remembered.
const REMEMBERED: usize = 16;
/// The moving average takes an eighth of each new sample, as TCP's does (RFC 6298).
const SMOOTHING: u32 = 8;

/// The clocks of one established link.
#[derive(Debug)]
pub(super) struct Liveness {
    timers: Timers,
    heard: Instant,
    silent: bool,
    next_heartbeat: Instant,
    sequence: u64,
    /// Unanswered heartbeats, oldest first.
    sent: VecDeque<(u64, Instant)>,
    round_trip: Option<Duration>,
}

/// What time has brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Send a heartbeat with this sequence; `missed`: the one before is unanswered.
    Heartbeat {
        sequence: u64,
        missed: bool,
    },
    Degraded,
    Dead,
}

/// There was no heartbeat of this sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NeverSent;

impl Liveness {
    /// The first heartbeat is due at once.
    pub(super) fn new(timers: Timers, now: Instant) -> Self {
        Self {
            timers,
            heard: now,
            silent: false,
            next_heartbeat: now,
            sequence: 0,
            sent: VecDeque::new(),
            round_trip: None,
        }
    }

    /// A frame arrived. Tells when that ends a silence.
    pub(super) fn hear(&mut self, now: Instant) -> Option<Silence> {
        self.heard = now;
        std::mem::take(&mut self.silent).then_some(Silence::Heard)
    }

    /// A heartbeat was answered; the answer covers all earlier ones, since acknowledgements coalesce. Tells the moving
    /// average, where the sequence was still remembered.
    pub(super) fn answer(&mut self, sequence: u64, now: Instant) -> Result<Option<Duration>, NeverSent> {
        if sequence == 0 || sequence > self.sequence {
            return Err(NeverSent);
        }
        let mut round_trip = None;
        while let Some((_, at)) = self.sent.pop_front_if(|(sent, _)| *sent <= sequence) {
            round_trip = Some(now.saturating_duration_since(at));
        }
        if let Some(sample) = round_trip {
            self.round_trip = Some(match self.round_trip {
                None => sample,
                Some(average) => (average * (SMOOTHING - 1) + sample) / SMOOTHING,
            });
        }
        Ok(round_trip.and(self.round_trip))
    }

    /// The next heartbeat is due at once: it has news.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.next_heartbeat = now;
    }

    /// What is due at `now`; call until `None`.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        if now >= self.death() {
            return Some(Due::Dead);
        }
        if !self.silent && now >= self.heard + self.timers.degraded_after {
            self.silent = true;
            return Some(Due::Degraded);
        }
        if now >= self.next_heartbeat {
            self.next_heartbeat = now + self.timers.heartbeat;
            self.sequence += 1;
            let missed = !self.sent.is_empty();
            if self.sent.len() < REMEMBERED {
                self.sent.push_back((self.sequence, now));
            }
            return Some(Due::Heartbeat { sequence: self.sequence, missed });
        }
        None
    }

    /// When something will be due.
    pub(super) fn wake_at(&self) -> Instant {
        let degraded = (!self.silent).then(|| self.heard + self.timers.degraded_after);
        let next = self.next_heartbeat.min(self.death());
        degraded.map_or(next, |degraded| degraded.min(next))
    }

    fn death(&self) -> Instant {
        let unanswered = self.sent.front().map_or(self.heard, |(_, at)| *at);
        unanswered.min(self.heard) + self.timers.dead_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn run(liveness: &mut Liveness, now: Instant) -> Vec<Due> {
        let mut all = Vec::new();
        while let Some(due) = liveness.due(now) {
            all.push(due);
            if due == Due::Dead {
                break;
            }
        }
        all
    }

    #[test]
    fn silence_degrades_then_kills() {
        let start = Instant::now();
        let mut liveness = Liveness::new(Timers::default(), start);
        assert_eq!(run(&mut liveness, start), [Due::Heartbeat { sequence: 1, missed: false }]);
        assert_eq!(run(&mut liveness, start + 10 * SECOND), [Due::Heartbeat { sequence: 2, missed: true }]);
        assert_eq!(run(&mut liveness, start + 15 * SECOND), [Due::Degraded]);
        assert_eq!(run(&mut liveness, start + 29 * SECOND), [Due::Heartbeat { sequence: 3, missed: true }]);
        assert_eq!(run(&mut liveness, start + 30 * SECOND), [Due::Dead]);
    }

    #[test]
    fn a_peer_that_writes_but_never_answers_is_dead() {
        let start = Instant::now();
        let mut liveness = Liveness::new(Timers::default(), start);
        for second in 0..30 {
            assert_eq!(liveness.hear(start + second * SECOND), None);
            assert!(!run(&mut liveness, start + second * SECOND).contains(&Due::Dead), "{second}");
        }
        liveness.hear(start + 30 * SECOND);
        assert_eq!(run(&mut liveness, start + 30 * SECOND), [Due::Dead]);
    }

    #[test]
    fn answers_give_a_moving_average_and_cover_earlier_ones() {
        let start = Instant::now();
        let mut liveness = Liveness::new(Timers::default(), start);
        run(&mut liveness, start);
        let millis = Duration::from_millis;
        assert_eq!(liveness.answer(1, start + millis(8)), Ok(Some(millis(8))));
        run(&mut liveness, start + 10 * SECOND);
        assert_eq!(liveness.answer(2, start + 10 * SECOND + millis(16)), Ok(Some(millis(9))));
        assert_eq!(liveness.answer(3, start + 11 * SECOND), Err(NeverSent));
        assert_eq!(liveness.answer(2, start + 11 * SECOND), Ok(None));
    }

    #[test]
    fn being_heard_again_ends_a_silence_once() {
        let start = Instant::now();
        let mut liveness = Liveness::new(Timers::default(), start);
        run(&mut liveness, start + 16 * SECOND);
        assert_eq!(liveness.hear(start + 17 * SECOND), Some(Silence::Heard));
        assert_eq!(liveness.hear(start + 17 * SECOND), None);
    }
}
