//! Makes up facts: the same ones for the same seed on every machine, without end.
//!
//! Some visitors are about at any time. Each looks at pages of one domain, one after the other, and is then followed by
//! somebody else; who has one cookie for each of their devices, and now and then logs in, which says whose the cookie is.

use std::collections::VecDeque;

use lambdaflow::testing::Random;

use super::{Equiv, Fact, Pageview, Person};

/// What the facts are like.
#[derive(Clone, Debug)]
pub struct GeneratorOptions {
    /// Persons; of two visits one is by the first tenth of them.
    pub persons: u64,
    /// Cookies of each person.
    pub devices: u64,
    /// Domains.
    pub domains: u64,
    /// Pages of each domain, every octave of which is about as popular as any other.
    pub pages: u64,
    /// Visitors who are about at a time.
    pub about: usize,
    /// Seconds from one fact to the next.
    pub seconds_per_fact: u64,
    /// Of a hundred facts, how many are equivalences.
    pub equivs_percent: u64,
    /// Of a hundred facts, how many were delivered before.
    pub duplicates_percent: u64,
}

impl Default for GeneratorOptions {
    fn default() -> Self {
        Self {
            persons: 100_000,
            devices: 3,
            domains: 20,
            pages: 1_000,
            about: 200,
            seconds_per_fact: 2,
            equivs_percent: 5,
            duplicates_percent: 2,
        }
    }
}

/// Event time of the first fact: 2026-01-01T00:00:00Z.
const START: u64 = 1_767_225_600;
/// One in so many pageviews is the visitor's last.
const LEAVE_ONE_IN: u64 = 3;
/// One in so many pageviews is late, by less than two days.
const LATE_ONE_IN: u64 = 50;
const LATE_SECONDS: u64 = 2 * 86_400;
/// One in so many pageviews is by a user who is logged in.
const LOGGED_IN_ONE_IN: u64 = 5;
/// Pageviews that may be delivered again.
const REMEMBERED: usize = 1_000;

/// Somebody who is about.
#[derive(Clone, Copy, Debug)]
struct Visitor {
    person: u64,
    device: u64,
    domain: u64,
}

/// An endless, seeded stream of facts.
#[derive(Clone, Debug)]
pub struct Generator {
    options: GeneratorOptions,
    random: Random,
    about: Vec<Visitor>,
    delivered: VecDeque<Pageview>,
    now: u64,
}

impl Generator {
    /// The stream of a seed.
    pub fn new(seed: u64, options: GeneratorOptions) -> Self {
        let mut random = Random::new(seed);
        let about = (0..options.about.max(1)).map(|_| Visitor::new(&mut random, &options)).collect();
        Self { options, random, about, delivered: VecDeque::new(), now: START }
    }

    fn equiv(&mut self, Visitor { person, device, .. }: Visitor) -> Equiv {
        // Mostly a login; now and then a link in a mail was followed on another device.
        let other = match self.random.below(8) {
            0 => cookie(person, self.random.below(self.options.devices)),
            _ => Person::User(person),
        };
        Equiv { a: cookie(person, device), b: other }
    }

    fn pageview(&mut self, Visitor { person, device, domain }: Visitor) -> Pageview {
        let octaves = u64::from(self.options.pages.max(1).ilog2()) + 1;
        let octave = 1 << self.random.below(octaves);
        let page = (octave + self.random.below(octave)).min(self.options.pages);
        let query = if self.random.below(10) == 0 { "?from=mail" } else { "" };
        let late = if self.random.below(LATE_ONE_IN) == 0 { self.random.below(LATE_SECONDS) } else { 0 };
        let logged_in = self.random.below(LOGGED_IN_ONE_IN) == 0;
        Pageview {
            person: if logged_in { Person::User(person) } else { cookie(person, device) },
            url: format!("https://site{domain}.example/page/{page}{query}"),
            at: self.now - late,
            nonce: self.random.below(u64::MAX),
        }
    }
}

impl Visitor {
    fn new(random: &mut Random, options: &GeneratorOptions) -> Self {
        let among = if random.below(2) == 0 { options.persons / 10 } else { options.persons };
        Self { person: random.below(among), device: random.below(options.devices), domain: random.below(options.domains) }
    }
}

/// The number of a person's cookie, which says nothing of the person.
fn cookie(person: u64, device: u64) -> Person {
    Person::Cookie(Random::new(person << 8 | device).below(u64::MAX))
}

impl Iterator for Generator {
    type Item = Fact;

    fn next(&mut self) -> Option<Fact> {
        self.now += self.options.seconds_per_fact;
        let at = self.random.below(self.about.len() as u64) as usize;
        let visitor = self.about[at];
        let kind = self.random.below(100);
        if kind < self.options.equivs_percent {
            return Some(Fact::Equiv(self.equiv(visitor)));
        }
        if kind < self.options.equivs_percent + self.options.duplicates_percent && !self.delivered.is_empty() {
            let again = self.random.below(self.delivered.len() as u64) as usize;
            return Some(Fact::Pageview(self.delivered[again].clone()));
        }
        let pageview = self.pageview(visitor);
        if self.random.below(LEAVE_ONE_IN) == 0 {
            self.about[at] = Visitor::new(&mut self.random, &self.options);
        }
        if self.delivered.len() == REMEMBERED {
            self.delivered.pop_front();
        }
        self.delivered.push_back(pageview.clone());
        Some(Fact::Pageview(pageview))
    }
}
