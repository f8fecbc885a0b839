//! Assigns ticks and says which are complete.
//!
//! The floor is the smallest tick that may still be given out. It follows the clock, and moves on without it. The frontier
//! is what readers are told: below it every event is durable and readable. It is the smallest of the floor, the ticks of
//! groups on their way to disk, and the reserved mark, so a restart cannot fall behind it.
use super::mark::{self, RESERVE_LEFT_TICKS_MIN};
use super::position::Tick;

/// The ticks of a running log. All changes happen under one lock.
#[derive(Debug)]
pub(crate) struct Ticks {
    floor: Tick,
    in_flight: Vec<Option<Tick>>,
    reserved: Tick,
    frontier: Tick,
    /// The highest tick that another process is known to have reached.
    raised: Tick,
}

impl Ticks {
    /// Starts at `floor`; nothing was announced above it.
    pub fn new(floor: Tick, reserved: Tick, partitions: usize) -> Self {
        Ticks { floor, in_flight: vec![None; partitions], reserved, frontier: floor.min(reserved), raised: Tick::ZERO }
    }

    /// The tick of a group that starts now; the frontier waits for it until [`Ticks::land`].
    pub fn take_off(&mut self, partition: usize, now: Tick) -> Tick {
        self.floor = self.floor.max(now);
        self.in_flight[partition] = Some(self.floor);
        self.floor
    }

    /// The partition's group is durable and readable.
    pub fn land(&mut self, partition: usize) {
        self.in_flight[partition] = None;
    }

    /// Closes the current tick: later groups get a higher one.
    pub fn close(&mut self, now: Tick) -> Tick {
        self.floor = now.max(self.floor.next());
        self.floor
    }

    /// Lets no later group have a smaller tick.
    pub fn raise(&mut self, tick: Tick) {
        self.raised = self.raised.max(tick);
        self.floor = self.floor.max(tick);
    }

    /// The mark to reserve: as far ahead of a tick that another process reached as of the own clock, so that a process whose
    /// clock is behind does not write the mark ten times as often.
    pub fn to_reserve(&self, now: Tick) -> Tick {
        mark::reserve(now.max(self.raised), self.floor)
    }

    /// A mark with this reserve is durable.
    pub fn reserve(&mut self, reserved: Tick) {
        self.reserved = self.reserved.max(reserved);
    }

    /// The smallest tick that may still be given out.
    pub fn floor(&self) -> Tick {
        self.floor
    }

    /// Whether the mark should be rewritten.
    pub fn reserve_is_low(&self) -> bool {
        self.floor.plus(RESERVE_LEFT_TICKS_MIN) > self.reserved
    }

    /// The tick before which everything is complete; never goes back.
    pub fn frontier(&mut self) -> Tick {
        let lowest = self.in_flight.iter().flatten().copied().min().unwrap_or(self.floor);
        self.frontier = self.frontier.max(lowest.min(self.floor).min(self.reserved));
        self.frontier
    }
}
