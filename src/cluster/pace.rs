//! How far a process has come, how fast it goes on, and who stands still while this process does not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The tick that a process has come to, and how long it pauses until it goes on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    pub tick: u64,
    pub pause: Duration,
}

/// A [`Pace`] that one thread sets and others look at.
#[derive(Default)]
pub(super) struct SharedPace {
    tick: AtomicU64,
    pause_ms: AtomicU64,
}

impl SharedPace {
    /// No tick goes back.
    pub fn set(&self, Pace { tick, pause }: Pace) {
        self.pause_ms.store(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
        self.tick.fetch_max(tick, Ordering::AcqRel);
    }

    pub fn get(&self) -> Pace {
        let tick = self.tick.load(Ordering::Acquire);
        Pace { tick, pause: Duration::from_millis(self.pause_ms.load(Ordering::Acquire)) }
    }
}

/// How long a process has stood still, and this one has gone on meanwhile.
pub(super) struct Standing {
    tick: u64,
    since: Instant,
    own: u64,
    looked: Instant,
    went_on: Duration,
}

impl Standing {
    pub fn new(now: Instant) -> Self {
        Self { tick: 0, since: now, own: 0, looked: now, went_on: Duration::ZERO }
    }

    /// How long the other process has stood still, if both that and the time in which this one went on are longer than the pauses
    /// of both and `patience`. Ticks begin when the processes serve; when none goes on, as on a disk that all wait for, none is to
    /// blame.
    pub fn look(&mut self, now: Instant, other: Pace, own: Pace, patience: Duration) -> Option<Duration> {
        if other.tick != self.tick || other.tick == 0 {
            *self = Self { tick: other.tick, own: own.tick, ..Self::new(now) };
        }
        // Ticks are milliseconds. The first after a time in which this process stood still, too, makes up for all of it.
        let step = Duration::from_millis(own.tick.saturating_sub(self.own));
        self.went_on += step.min((now - self.looked).max(own.pause));
        (self.own, self.looked) = (own.tick, now);
        let stands = now - self.since;
        let patience = patience.saturating_add(own.pause.max(other.pause));
        (stands > patience && self.went_on > patience).then_some(stands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK_MS: u64 = 50;
    const PATIENCE: Duration = Duration::from_secs(2);

    fn pace(tick: u64, pause_ms: u64) -> Pace {
        Pace { tick, pause: Duration::from_millis(pause_ms) }
    }

    /// After how many milliseconds of looking the other process is given up, if it is within a minute. The ticks of both follow from
    /// the time, and begin at 1.
    fn given_up(pauses_ms: (u64, u64), own: impl Fn(u64) -> u64, other: impl Fn(u64) -> u64) -> Option<u64> {
        let began = Instant::now();
        let mut standing = Standing::new(began);
        (0..60_000).step_by(LOOK_MS as usize).find(|ms| {
            let (own, other) = (pace(1 + own(*ms), pauses_ms.0), pace(1 + other(*ms), pauses_ms.1));
            standing.look(began + Duration::from_millis(*ms), other, own, PATIENCE).is_some()
        })
    }

    #[test]
    fn a_process_may_stand_still_for_its_pause_and_the_patience() {
        for pauses in [(10, 10), (10, 3_000), (3_000, 10), (3_000, 3_000), (10, 12_000), (12_000, 12_000)] {
            let steps = |pause: u64| move |ms: u64| ms / pause * pause;
            let (own, other) = (steps(pauses.0), steps(pauses.1));
            assert_eq!(given_up(pauses, own, other), None, "{pauses:?}");
            // It stops after its first step.
            let (stops, latest) = (pauses.1.max(LOOK_MS), pauses.0.max(pauses.1) + 2_000);
            let noticed = given_up(pauses, own, |ms| other(ms.min(stops))).unwrap_or_else(|| panic!("{pauses:?}: it goes unnoticed"));
            assert!((stops + latest..=stops + latest + 2 * pauses.0 + 2 * LOOK_MS).contains(&noticed), "{pauses:?}: after {noticed} ms");
        }
    }

    #[test]
    fn when_all_stand_still_none_is_to_blame_nor_whoever_goes_on_a_moment_later() {
        let stalled = |from: u64, to: u64| move |ms: u64| if ms < to { ms.min(from) } else { ms };
        assert_eq!(given_up((10, 10), stalled(5_000, 60_000), stalled(5_000, 60_000)), None);
        assert_eq!(given_up((10, 10), stalled(5_000, 20_000), stalled(5_000, 20_100)), None);
        // Nor is it forgotten that it stands.
        let noticed = given_up((10, 10), stalled(5_000, 20_000), stalled(5_000, 60_000)).expect("it stands still");
        assert!((22_000..=22_200).contains(&noticed), "after {noticed} ms");
    }
}
