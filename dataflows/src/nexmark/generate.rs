//! Makes up events by the benchmark's published generator, from the crate `nexmark`.
//!
//! Of 50 events one is a person, three are auctions and 46 are bids; half of the bids are for one auction in a hundred,
//! three quarters of the bids and auctions are one person's in a hundred. Bids may name auctions and persons that come a
//! little later. All parameters are the standard ones, but for what [`GeneratorOptions`] says.

use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::Event;

use super::event::{Auction, Bid, NexmarkEvent, Person};

/// Events between the first of one seed and the first of the next: seeds are stretches of one stream.
const EVENTS_OF_A_SEED: usize = 1_000_000_000;
/// As many seeds have streams of their own; it keeps identifiers below 2^53, which every reader of JSON can take.
const SEEDS: u64 = 1 << 20;

/// What the standard leaves open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratorOptions {
    /// Events per second of event time.
    pub events_per_second: usize,
    /// Events are shuffled in groups of this size: 1 for none late.
    pub out_of_order: usize,
    /// Event time of the first event, milliseconds since 1970.
    pub start: u64,
}

impl Default for GeneratorOptions {
    fn default() -> Self {
        // 2015-07-15T00:00:00Z, as in the benchmark's first implementation.
        Self { events_per_second: 10_000, out_of_order: 1, start: 1_436_918_400_000 }
    }
}

/// The events of a seed, without end. Seed 1 is the standard's stream.
pub fn events(seed: u64, options: &GeneratorOptions) -> impl Iterator<Item = NexmarkEvent> + use<> {
    let words = |text: &str| text.split(',').map(str::to_owned).collect();
    let config = NexmarkConfig {
        base_time: options.start,
        first_event_id: (seed.wrapping_sub(1) % SEEDS) as usize * EVENTS_OF_A_SEED,
        first_rate: options.events_per_second.max(1),
        next_rate: options.events_per_second.max(1),
        out_of_order_group_size: options.out_of_order.max(1),
        // The crate has them in lower case, which no query would find.
        us_states: words("AZ,CA,ID,OR,WA,WY"),
        us_cities: words("Phoenix,Los Angeles,San Francisco,Boise,Portland,Bend,Redmond,Seattle,Kent,Cheyenne"),
        first_names: words("Peter,Paul,Luke,John,Saul,Vicky,Kate,Julie,Sarah,Deiter,Walter"),
        last_names: words("Shultz,Abrams,Spencer,White,Bartels,Walton,Smith,Jones,Noris"),
        ..NexmarkConfig::default()
    };
    EventGenerator::new(config).map(NexmarkEvent::from)
}

impl From<Event> for NexmarkEvent {
    fn from(event: Event) -> Self {
        match event {
            Event::Person(person) => Self::Person(Person {
                id: person.id as u64,
                name: person.name,
                email_address: person.email_address,
                credit_card: person.credit_card,
                city: person.city,
                state: person.state,
                date_time: person.date_time,
                extra: person.extra,
            }),
            Event::Auction(auction) => Self::Auction(Auction {
                id: auction.id as u64,
                item_name: auction.item_name,
                description: auction.description,
                initial_bid: auction.initial_bid as u64,
                reserve: auction.reserve as u64,
                date_time: auction.date_time,
                expires: auction.expires,
                seller: auction.seller as u64,
                category: auction.category as u64,
                extra: auction.extra,
            }),
            Event::Bid(bid) => Self::Bid(Bid {
                auction: bid.auction as u64,
                bidder: bid.bidder as u64,
                price: bid.price as u64,
                channel: bid.channel,
                url: bid.url,
                date_time: bid.date_time,
                extra: bid.extra,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_has_the_standard_shares_and_rate() {
        let options = GeneratorOptions::default();
        let made: Vec<NexmarkEvent> = events(1, &options).take(50_000).collect();
        let count = |is: fn(&NexmarkEvent) -> bool| made.iter().filter(|event| is(event)).count();
        assert_eq!(count(|event| matches!(event, NexmarkEvent::Person(_))), 1_000);
        assert_eq!(count(|event| matches!(event, NexmarkEvent::Auction(_))), 3_000);
        assert!(made.is_sorted_by_key(NexmarkEvent::date_time));
        assert_eq!(made[49_999].date_time() - options.start, 5_000);
        assert!(made.iter().any(|event| matches!(event, NexmarkEvent::Person(person) if person.state == "OR")));
    }

    #[test]
    fn seeds_are_different_and_repeat() {
        let options = GeneratorOptions { out_of_order: 100, ..GeneratorOptions::default() };
        let made = |seed| events(seed, &options).take(300).collect::<Vec<_>>();
        assert_eq!(made(7), made(7));
        assert_ne!(made(7), made(8));
        assert!(!made(7).is_sorted_by_key(NexmarkEvent::date_time), "some are late");
        assert!(matches!(events(0, &options).next(), Some(NexmarkEvent::Person(person)) if person.id < 1 << 53));
    }
}
