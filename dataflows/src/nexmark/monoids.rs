//! Monoids of bids. They only grow, which is enough for events: bids are never taken back.

use columnar::Columnar;
use lambdaflow::differential_dataflow::difference::{IsZero, Semigroup};
use lambdaflow::prelude::*;

use super::views::{RANK_BOUNDS, TOP_BIDS, WholeBid};

macro_rules! list_monoid {
    ($name:ident) => {
        impl IsZero for $name {
            fn is_zero(&self) -> bool {
                self.0.is_empty()
            }
        }
        impl Monoid for $name {
            type Answer = Self;
            fn answer(&self) -> Self {
                self.clone()
            }
        }
    };
}

/// The bids with the highest price, all of them; ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Highest(pub Vec<WholeBid>);
list_monoid!(Highest);

impl Semigroup for Highest {
    fn plus_equals(&mut self, other: &Self) {
        let price = |bids: &Self| bids.0.first().map(|bid| bid.price);
        match price(self).cmp(&price(other)) {
            std::cmp::Ordering::Greater => {}
            std::cmp::Ordering::Less => self.clone_from(other),
            std::cmp::Ordering::Equal => {
                self.0.extend_from_slice(&other.0);
                self.0.sort();
            }
        }
    }
}

/// A bid among those for one auction, in the order of its fields: a higher price first, then an earlier time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Offer {
    /// The price, counted down from the greatest: offers are in ascending order.
    pub below: u64,
    pub date_time: u64,
    pub bidder: u64,
    pub channel: String,
    pub url: String,
    pub extra: String,
}

/// The first [`TOP_BIDS`] offers, equal ones each on its own; ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct TopOffers(pub Vec<Offer>);
list_monoid!(TopOffers);

impl Semigroup for TopOffers {
    fn plus_equals(&mut self, other: &Self) {
        for offer in &other.0 {
            let at = self.0.partition_point(|known| known <= offer);
            if at < TOP_BIDS {
                self.0.truncate(TOP_BIDS - 1);
                self.0.insert(at, offer.clone());
            }
        }
    }
}

/// In which ranks of the price there was a bid: bit 0 for the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Ranks(pub u8);

impl Ranks {
    /// The rank of one price.
    pub fn of(price: u64) -> Self {
        Self(1 << RANK_BOUNDS.iter().filter(|bound| price >= **bound).count())
    }

    /// One for each rank, in order.
    pub fn each(self) -> [Count; 3] {
        [0, 1, 2].map(|rank| Count(isize::from(self.0 >> rank & 1)))
    }
}

impl IsZero for Ranks {
    fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl Semigroup for Ranks {
    fn plus_equals(&mut self, other: &Self) {
        self.0 |= other.0;
    }
}

impl Monoid for Ranks {
    type Answer = u8;
    fn answer(&self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lambdaflow::testing::check_monoid;

    #[test]
    fn they_are_monoids() {
        let bid = |price, bidder| WholeBid { auction: 1, bidder, price, date_time: 0, extra: String::new() };
        check_monoid(&[Highest(vec![bid(5, 1)]), Highest(vec![bid(5, 1), bid(5, 2)]), Highest(vec![bid(4, 9)])]);

        let offer = |below, channel: &str| Offer {
            below,
            date_time: 0,
            bidder: 0,
            channel: channel.to_owned(),
            url: String::new(),
            extra: String::new(),
        };
        let most = (0..TOP_BIDS as u64).map(|at| offer(at / 2, "a")).collect();
        check_monoid(&[TopOffers(most), TopOffers(vec![offer(0, "b")]), TopOffers(vec![offer(1, "a"), offer(1, "a"), offer(9, "")])]);

        check_monoid(&[9_999, 10_000, 999_999, 1_000_000].map(Ranks::of));
        assert_eq!([9_999, 10_000, 999_999, 1_000_000].map(|price| Ranks::of(price).0), [1, 2, 2, 4]);
    }
}
