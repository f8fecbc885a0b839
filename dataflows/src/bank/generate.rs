//! Makes up transfers: the same ones for the same seed on every machine, without end.

use lambdaflow::testing::Random;

use super::Transfer;

/// Accounts that transfers are between.
const ACCOUNTS: u64 = 1_000;
/// Every other transfer is between the first accounts, since some are always busy.
const BUSY: u64 = 10;
/// Largest amount, in cents.
const AMOUNT_MAX: u64 = 1_000_000;
/// Transfers per second of event time.
const PER_SECOND: u64 = 10;
/// One in so many transfers is late.
const LATE_ONE_IN: u64 = 20;
/// Three days, in seconds: how late a transfer may be.
const LATE_SECONDS_MAX: u64 = 3 * 86_400;
/// Event time of the first transfer: 2026-01-01T00:00:00Z.
const START: u64 = 1_767_225_600;

/// An endless, seeded stream of transfers.
#[derive(Clone, Debug)]
pub struct Generator {
    random: Random,
    next: u64,
}

impl Generator {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), next: 0 }
    }

    fn account(&mut self) -> u64 {
        let among = if self.random.below(2) == 0 { BUSY } else { ACCOUNTS };
        self.random.below(among)
    }
}

impl Iterator for Generator {
    type Item = Transfer;

    fn next(&mut self) -> Option<Transfer> {
        let id = self.next;
        self.next += 1;
        let late = if self.random.below(LATE_ONE_IN) == 0 { self.random.below(LATE_SECONDS_MAX) } else { 0 };
        let (from, to) = (self.account(), self.account());
        Some(Transfer { id, at: START + id / PER_SECOND - late, from, to, amount: 1 + self.random.below(AMOUNT_MAX) as i64 })
    }
}
