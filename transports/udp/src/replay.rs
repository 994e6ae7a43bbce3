//! Which numbers have come: the suppression of duplicates, and what to acknowledge (SPEC 7).

use crate::packet::Acked;

/// Numbers below the highest one that are told apart; older ones are refused.
pub const WINDOW: u64 = 4096;
const WORDS: usize = (WINDOW / 64) as usize;

/// The numbers of one direction, from 1.
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    /// The lowest number that is still awaited.
    base: u64,
    /// The highest that came, or 0.
    highest: u64,
    /// By number, modulo the window's size.
    bits: Box<[u64; WORDS]>,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { base: 1, highest: 0, bits: Box::new([0; WORDS]) }
    }
}

impl ReplayWindow {
    /// Whether this number may still come, and has not.
    #[must_use]
    pub fn is_new(&self, number: u64) -> bool {
        number >= self.base && (number > self.highest || (self.highest - number < WINDOW && !self.has(number)))
    }

    /// Notes a new number.
    pub fn record(&mut self, number: u64) {
        if number > self.highest {
            let fresh = number - self.highest;
            if fresh >= WINDOW {
                self.bits.fill(0);
            } else {
                (self.highest + 1..=number).for_each(|number| self.set(number, false));
            }
            self.highest = number;
            // What the window has left behind will not come.
            self.base = self.base.max(number.saturating_sub(WINDOW - 1));
        }
        self.set(number, true);
        self.advance();
    }

    /// The sender has given up what is below `floor`.
    pub fn raise(&mut self, floor: u64) {
        if floor > self.base {
            self.base = floor;
            self.advance();
        }
    }

    /// The lowest number that is still awaited.
    #[must_use]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// What to tell the sender.
    #[must_use]
    pub fn acked(&self) -> Acked {
        let behind = self.highest.saturating_sub(self.base);
        if behind == 0 {
            return Acked { base: self.base, map: 0 };
        }
        let first = self.base.wrapping_add(1);
        let (word, shift) = Self::place(first);
        let low = self.bits.get(word).map_or(0, |bits| bits >> shift);
        let next = self.bits.get((word + 1) % WORDS).copied().unwrap_or_default();
        let high = if shift == 0 { 0 } else { next << (64 - shift) };
        let known = if behind >= 64 { u64::MAX } else { (1 << behind) - 1 };
        Acked { base: self.base, map: (low | high) & known }
    }

    fn advance(&mut self) {
        while self.base <= self.highest && self.has(self.base) {
            self.base += 1;
        }
    }

    const fn place(number: u64) -> (usize, u32) {
        (((number / 64) % WORDS as u64) as usize, (number % 64) as u32)
    }

    fn has(&self, number: u64) -> bool {
        let (word, shift) = Self::place(number);
        self.bits.get(word).is_some_and(|bits| bits >> shift & 1 == 1)
    }

    fn set(&mut self, number: u64, to: bool) {
        let (word, shift) = Self::place(number);
        if let Some(bits) = self.bits.get_mut(word) {
            *bits = *bits & !(1 << shift) | u64::from(to) << shift;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_comes_once_and_not_after_the_window_or_the_floor_has_passed_it() {
        let mut window = ReplayWindow::default();
        assert!(!window.is_new(0));
        for number in [1, 3, 5000] {
            assert!(window.is_new(number));
            window.record(number);
            assert!(!window.is_new(number));
        }
        assert!(!window.is_new(5000 - WINDOW));
        assert!(window.is_new(5000 - WINDOW + 1));
        window.raise(4000);
        assert!(!window.is_new(3999));
        assert!(window.is_new(4000));
        window.raise(6000);
        assert_eq!(window.acked(), Acked { base: 6000, map: 0 });
        assert!(!window.is_new(5999) && window.is_new(6000));
    }

    proptest! {
        #[test]
        fn it_says_what_a_set_of_numbers_would_say(
            steps in prop::collection::vec((1_u64..300, 0_u64..40), 1..400), start in prop::sample::select(vec![0_u64, 5000, 1 << 40]),
        ) {
            let mut window = ReplayWindow::default();
            let (mut seen, mut floor) = (BTreeSet::new(), 1);
            if start > 0 {
                window.raise(start);
                floor = start;
            }
            for (near, rise) in steps {
                let number = start + near;
                if rise == 0 {
                    floor = floor.max(start + near / 2);
                    window.raise(floor);
                }
                let new = number >= floor && !seen.contains(&number);
                prop_assert_eq!(window.is_new(number), new, "{}", number);
                if new {
                    window.record(number);
                    seen.insert(number);
                }
                let base = (floor..).find(|number| !seen.contains(number)).unwrap();
                let map = (0..64).filter(|bit| seen.contains(&(base + 1 + bit))).map(|bit| 1 << bit).sum();
                prop_assert_eq!(window.acked(), Acked { base, map });
            }
        }

        #[test]
        fn any_numbers_are_borne(steps in prop::collection::vec((any::<u64>(), any::<bool>()), 1..50)) {
            let mut window = ReplayWindow::default();
            for (number, floor) in steps {
                let number = number % (1 << 62);
                if floor {
                    window.raise(number);
                } else if window.is_new(number) {
                    window.record(number);
                    prop_assert!(!window.is_new(number));
                }
                let _ = window.acked();
            }
        }
    }
}
