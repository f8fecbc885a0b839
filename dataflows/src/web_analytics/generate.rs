//! Makes up requests: the same ones for the same seed on every machine, without end.
//!
//! Only integers take part, because `exp` and `ln` may differ in the last bit between platforms.
//! Paths, visitors and referrers are skewed as on real sites: every octave of ranks `[2^k, 2^(k+1))` is
//! about as likely as any other, which is Zipf's law in steps, for two random numbers a draw.

use std::fmt::Write;

use super::Request;
use super::calendar::{Date, MONTHS};

/// How far behind its turn the event time of a late request may be, in seconds.
pub const LATE_SECONDS_MAX: u64 = 300;
/// One in so many requests is late.
const LATE_ONE_IN: u64 = 64;
/// One in so many requests has no readable request line.
const ODD_ONE_IN: u64 = 2048;
/// One in so many requests came by a link.
const LINKED_ONE_IN: u64 = 4;

/// What a [`Generator`] draws from. A count or rate of 0 is taken for 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratorOptions {
    /// Distinct paths.
    pub paths: u32,
    /// Distinct hosts.
    pub visitors: u32,
    /// Distinct referrers besides `-`.
    pub referrers: u32,
    /// Event time of the first request, seconds since 1970 in UTC.
    pub start: u64,
    /// Requests per second of event time.
    pub events_per_second: u64,
}

impl Default for GeneratorOptions {
    fn default() -> Self {
        GeneratorOptions {
            paths: 10_000,
            visitors: 100_000,
            referrers: 1_000,
            // 2026-01-01T00:00:00Z, so that hours and days begin with the stream.
            start: 1_767_225_600,
            events_per_second: 1_000,
        }
    }
}

/// An endless, seeded stream of requests.
#[derive(Clone, Debug)]
pub struct Generator {
    random: Random,
    options: GeneratorOptions,
    now: u64,
    sent_this_second: u64,
}

impl Generator {
    pub fn new(seed: u64, options: GeneratorOptions) -> Self {
        let options = GeneratorOptions {
            paths: options.paths.max(1),
            visitors: options.visitors.max(1),
            referrers: options.referrers.max(1),
            events_per_second: options.events_per_second.max(1),
            ..options
        };
        Generator { random: Random { state: seed }, now: options.start, sent_this_second: 0, options }
    }

    fn event_time(&mut self) -> u64 {
        if self.sent_this_second == self.options.events_per_second {
            self.now = self.now.saturating_add(1);
            self.sent_this_second = 0;
        }
        self.sent_this_second += 1;
        if self.random.one_in(LATE_ONE_IN) {
            let late = 1 + self.random.below(LATE_SECONDS_MAX);
            self.now.saturating_sub(late)
        } else {
            self.now
        }
    }

    fn status(&mut self) -> u16 {
        match self.random.below(1000) {
            0..=1 => 500,
            2..=24 => 404,
            25..=69 => 304,
            _ => 200,
        }
    }
}

impl Iterator for Generator {
    type Item = Request;

    fn next(&mut self) -> Option<Request> {
        let at = self.event_time();
        let visitor = self.random.rank(self.options.visitors);
        let agent = AGENTS[visitor as usize % AGENTS.len()];
        if self.random.one_in(ODD_ONE_IN) {
            let line = ODD_LINES[self.random.below(ODD_LINES.len() as u64) as usize];
            return Some(Request {
                at,
                host: host(visitor),
                user: "-".to_owned(),
                method: String::new(),
                path: line.to_owned(),
                protocol: String::new(),
                status: 400,
                bytes: 226,
                referrer: "-".to_owned(),
                agent: "-".to_owned(),
            });
        }
        let page = self.random.rank(self.options.paths);
        let status = self.status();
        let bytes = match status {
            304 => 0,
            200 => 200 + self.random.below(1 << 15),
            _ => 300,
        };
        let referrer = if self.random.one_in(LINKED_ONE_IN) { referrer(self.random.rank(self.options.referrers)) } else { "-".to_owned() };
        Some(Request {
            at,
            host: host(visitor),
            user: "-".to_owned(),
            method: "GET".to_owned(),
            path: path(page),
            protocol: "HTTP/1.1".to_owned(),
            status,
            bytes,
            referrer,
            agent: agent.to_owned(),
        })
    }
}

const AGENTS: [&str; 7] = [
    "Lantern/9.1 (X11; Linux x86_64) Wick/2026.1",
    "Lantern/9.1 (Windows NT 10.0; Win64; x64) Wick/2026.1",
    "Lantern/8.4 (Macintosh; arm64) Wick/2025.7",
    "Pocketleaf/3.2 (Phone; 390x844)",
    "Pocketleaf/3.0 (Tablet; 1024x768)",
    "harvest-bot/2.0 (+https://harvest.example/about)",
    "-",
];

/// Scanners, TLS on the plain port, a client that gave up: as a server would write them down.
const ODD_LINES: [&str; 4] = ["-", r"\x16\x03\x01\x02", "GET /", r"quit\n"];

/// A different dotted quad for each visitor: multiplying by an odd number permutes the addresses.
fn host(visitor: u32) -> String {
    let address = visitor.wrapping_mul(0x9e37_79b1).wrapping_add(0x2d5a_1c0b);
    let mut text = String::with_capacity(15);
    for (index, octet) in address.to_be_bytes().into_iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        push_number(&mut text, u32::from(octet));
    }
    text
}

fn path(page: u32) -> String {
    if page == 0 {
        return "/".to_owned();
    }
    let mut text = String::with_capacity(32);
    text.push_str("/products/");
    push_number(&mut text, page);
    text.push_str(["/", "/reviews", "/images/front.jpg", "/manual.pdf"][page as usize % 4]);
    text
}

fn referrer(site: u32) -> String {
    let mut text = String::with_capacity(40);
    text.push_str("https://site-");
    push_number(&mut text, site);
    text.push_str(".example/links");
    text
}

/// Appends a decimal number; `write!` would cost about as much as the rest of a request.
fn push_number(text: &mut String, number: u32) {
    let mut digits = [0u8; 10];
    let mut first = digits.len();
    let mut rest = number;
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    for &digit in &digits[first..] {
        text.push(char::from(digit));
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): any seed
/// is a good one, zero included.
#[derive(Clone, Debug)]
struct Random {
    state: u64,
}

impl Random {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number in `[0, bound)`; its bias, below `bound / 2^64`, does not matter here.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A skewed number in `[0, count)`, small ones first.
    fn rank(&mut self, count: u32) -> u32 {
        let count = u64::from(count);
        let octaves = u64::from(count.ilog2()) + 1;
        loop {
            let octave = 1u64 << self.below(octaves);
            let rank = octave + self.below(octave);
            // Only the last octave can reach past the end.
            if rank <= count {
                return (rank - 1) as u32;
            }
        }
    }
}

/// The request as one line of an access log in combined format, without an end of line.
///
/// [`parse_line`](super::parse::parse_line) reads it back unchanged if the line can express it: a host without
/// spaces, a user without ` [`, a method that fits its request line, a status below 1000, a year
/// below 10000, no control characters. Those are escaped, so that the result is one line whatever
/// the request holds.
pub fn to_combined_line(request: &Request) -> String {
    let mut line = String::with_capacity(96 + request.path.len() + request.referrer.len() + request.agent.len());
    push_escaped(&mut line, &request.host);
    line.push_str(" - ");
    if request.user.is_empty() {
        line.push_str("\"\"");
    } else {
        push_escaped(&mut line, &request.user);
    }
    push_time(&mut line, request.at);
    line.push('"');
    if request.method.is_empty() {
        push_escaped(&mut line, &request.path);
    } else {
        for (index, part) in [&request.method, &request.path, &request.protocol].into_iter().enumerate() {
            if index > 0 {
                line.push(' ');
            }
            push_escaped(&mut line, part);
        }
    }
    // Writing to a string cannot fail.
    let _ = write!(line, "\" {:03} {} \"", request.status, request.bytes);
    push_escaped(&mut line, &request.referrer);
    line.push_str("\" \"");
    push_escaped(&mut line, &request.agent);
    line.push('"');
    line
}

fn push_time(line: &mut String, at: u64) {
    let Date { year, month, day } = Date::from_days(at / 86_400);
    let month = MONTHS[month];
    let (hour, minute, second) = (at / 3600 % 24, at / 60 % 60, at % 60);
    let _ = write!(line, " [{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000] ");
}

fn push_escaped(line: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            control if control.is_ascii_control() => {
                let _ = write!(line, "\\x{:02x}", u32::from(control));
            }
            other => line.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn options() -> GeneratorOptions {
        GeneratorOptions { paths: 100, visitors: 1_000, referrers: 20, start: 1_000_000, events_per_second: 50 }
    }

    fn requests(seed: u64, count: usize) -> Vec<Request> {
        Generator::new(seed, options()).take(count).collect()
    }

    #[test]
    fn a_seed_always_gives_the_same_requests() {
        assert_eq!(requests(1, 5_000), requests(1, 5_000));
        assert_ne!(requests(1, 100), requests(2, 100));
        // Written down once: benchmark records of different days must be about the same input.
        let lines: Vec<String> = requests(42, 3).iter().map(to_combined_line).collect();
        assert_eq!(lines, FIRST_LINES_OF_SEED_42);
    }

    const FIRST_LINES_OF_SEED_42: [&str; 3] = [
        r#"203.145.149.188 - - [12/Jan/1970:13:46:40 +0000] "GET / HTTP/1.1" 200 26435 "-" "Lantern/9.1 (Windows NT 10.0; Win64; x64) Wick/2026.1""#,
        r#"166.56.2.207 - - [12/Jan/1970:13:46:40 +0000] "GET /products/12/ HTTP/1.1" 200 3593 "-" "Pocketleaf/3.0 (Tablet; 1024x768)""#,
        r#"208.57.13.199 - - [12/Jan/1970:13:46:40 +0000] "GET /products/24/ HTTP/1.1" 200 9295 "-" "harvest-bot/2.0 (+https://harvest.example/about)""#,
    ];

    #[test]
    fn exactly_the_asked_number_of_paths_visitors_and_referrers_appears() {
        let requests = requests(3, 200_000);
        let distinct = |field: fn(&Request) -> &str| {
            let plain = requests.iter().filter(|request| !request.method.is_empty());
            plain.map(field).collect::<BTreeSet<_>>().len()
        };
        assert_eq!(distinct(|request| &request.path), 100);
        assert_eq!(distinct(|request| &request.host), 1_000);
        assert_eq!(distinct(|request| &request.referrer), 20 + 1);
    }

    #[test]
    fn few_paths_take_most_requests_and_most_are_answered_with_200() {
        let requests = requests(4, 100_000);
        let mut paths: BTreeMap<&str, usize> = BTreeMap::new();
        let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
        for request in &requests {
            *paths.entry(&request.path).or_default() += 1;
            *statuses.entry(request.status).or_default() += 1;
        }
        let mut hits: Vec<usize> = paths.into_values().collect();
        hits.sort_by(|a, b| b.cmp(a));
        let top: usize = hits[..10].iter().sum();
        assert!((40_000..60_000).contains(&top), "{top}");
        assert!((91_000..95_000).contains(&statuses[&200]), "{statuses:?}");
        assert_eq!(statuses.keys().copied().collect::<Vec<_>>(), [200, 304, 400, 404, 500]);
    }

    #[test]
    fn some_requests_are_late_by_minutes_and_none_by_more_than_the_limit() {
        let mut latest = 0;
        let mut late = 0;
        for request in requests(5, 100_000) {
            let behind = options().start.max(latest).saturating_sub(request.at);
            assert!(behind <= LATE_SECONDS_MAX);
            late += usize::from(behind > 60);
            latest = latest.max(request.at);
        }
        assert_eq!(latest, options().start + 100_000 / 50 - 1);
        assert!((1_000..1_500).contains(&late), "{late}");
    }

    #[test]
    fn options_of_zero_count_as_one_and_the_largest_are_taken() {
        for (number, start) in [(0, 0), (u32::MAX, u64::MAX)] {
            let options = GeneratorOptions { paths: number, visitors: number, referrers: number, start, events_per_second: number.into() };
            assert_eq!(Generator::new(0, options).take(5_000).count(), 5_000);
        }
    }
}
