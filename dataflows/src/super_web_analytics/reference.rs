//! Computes the answers of every view with plain loops and maps: the oracle for the dataflow.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Serialize;
use serde_json::{Value, json};

use super::views::Granularity;
use super::{Fact, Person};

/// The rows of each view, `{"key": .., "value": .., "count": n}`, ascending by key and value.
pub type Answers = BTreeMap<&'static str, Vec<Value>>;

/// How long buckets are.
const BUCKET_SECONDS: [(Granularity, u64); 4] =
    [(Granularity::Hour, 3_600), (Granularity::Day, 86_400), (Granularity::Week, 604_800), (Granularity::Month, 2_419_200)];
/// A longer absence ends a visit.
const AWAY_SECONDS: u64 = 1_800;

/// What plain loops make of the facts.
pub struct Reference {
    /// Person behind the identity, page, time, nonce and identity, each once.
    pageviews: BTreeSet<(String, u64, u64, Person, Person)>,
    /// Pageviews of what is no URL.
    pub malformed: usize,
}

impl Reference {
    /// Of facts in any order.
    pub fn new<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> Self {
        let mut neighbours: BTreeMap<Person, Vec<Person>> = BTreeMap::new();
        let mut delivered = Vec::new();
        for fact in facts {
            match fact {
                Fact::Pageview(pageview) => delivered.push(pageview),
                Fact::Equiv(equiv) => {
                    neighbours.entry(equiv.a).or_default().push(equiv.b);
                    neighbours.entry(equiv.b).or_default().push(equiv.a);
                }
            }
        }
        // From the least identity that has no name yet, everybody who can be reached gets its name.
        let mut names: BTreeMap<Person, Person> = BTreeMap::new();
        for least in neighbours.keys() {
            let mut found = vec![*least];
            while let Some(identity) = found.pop() {
                if let Entry::Vacant(unnamed) = names.entry(identity) {
                    unnamed.insert(*least);
                    found.extend(&neighbours[&identity]);
                }
            }
        }
        let (mut pageviews, mut malformed) = (BTreeSet::new(), 0);
        for pageview in delivered {
            match page(&pageview.url) {
                Some(page) => {
                    let person = *names.get(&pageview.person).unwrap_or(&pageview.person);
                    pageviews.insert((page, pageview.at, pageview.nonce, pageview.person, person));
                }
                None => malformed += 1,
            }
        }
        Self { pageviews, malformed }
    }

    /// The answers of every view but `errors`.
    pub fn answers(&self) -> Answers {
        let mut pageviews: BTreeMap<(&str, Granularity, u64), u64> = BTreeMap::new();
        let mut visitors: BTreeMap<(&str, Granularity, u64), BTreeSet<Person>> = BTreeMap::new();
        let mut times: BTreeMap<(String, Person), Vec<u64>> = BTreeMap::new();
        for (page, at, _, _, person) in &self.pageviews {
            for (granularity, seconds) in BUCKET_SECONDS {
                let bucket = (page.as_str(), granularity, at / seconds * (seconds / 3_600));
                *pageviews.entry(bucket).or_default() += 1;
                visitors.entry(bucket).or_default().insert(*person);
            }
            times.entry((host(page), *person)).or_default().push(*at);
        }
        let mut domains: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for ((domain, _), mut times) in times {
            times.sort_unstable();
            let (visits, bounces) = domains.entry(domain).or_default();
            for (i, at) in times.iter().enumerate() {
                let first = i == 0 || at - times[i - 1] > AWAY_SECONDS;
                let last = i + 1 == times.len() || times[i + 1] - at > AWAY_SECONDS;
                *visits += u64::from(first);
                *bounces += u64::from(first && last);
            }
        }
        let rated = domains.into_iter().map(|(domain, (visits, bounces))| {
            let rate = bounces as f64 / visits as f64;
            (domain, json!({"visits": visits, "bounces": bounces, "rate": rate}))
        });
        let members = visitors.iter().flat_map(|(bucket, persons)| persons.iter().map(move |person| (bucket, person)));
        BTreeMap::from([
            ("pageviews", rows(pageviews)),
            ("visitors", rows(members)),
            ("uniques", rows(visitors.iter().map(|(bucket, persons)| (bucket, persons.len())))),
            ("bounce_rate", rows(rated)),
        ])
    }

    /// Pageviews and unique visitors of a page in a range of hours.
    pub fn in_hours(&self, url: &str, hours: Range<u64>) -> (u64, u64) {
        let times = hours.start * 3_600..hours.end * 3_600;
        let asked = self.pageviews.iter().filter(|(page, at, ..)| page == url && times.contains(at));
        let persons: Vec<Person> = asked.map(|(.., person)| *person).collect();
        (persons.len() as u64, persons.into_iter().collect::<BTreeSet<_>>().len() as u64)
    }
}

fn rows<K: Serialize, V: Serialize>(rows: impl IntoIterator<Item = (K, V)>) -> Vec<Value> {
    rows.into_iter().map(|(key, value)| json!({"key": key, "value": value, "count": 1})).collect()
}

/// The page that a URL is of, part by part.
fn page(url: &str) -> Option<String> {
    let url = url.trim();
    let colon = url.find("://")?;
    let scheme = url[..colon].to_ascii_lowercase();
    if scheme.is_empty() || scheme.chars().any(|c| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))) {
        return None;
    }
    let (mut host, mut path) = (String::new(), String::new());
    for c in url[colon + 3..].chars() {
        match c {
            '?' | '#' => break,
            '@' if path.is_empty() => host.clear(),
            '/' => path.push('/'),
            _ if path.is_empty() => host.push(c.to_ascii_lowercase()),
            _ => path.push(c),
        }
    }
    let default = [("http", ":80"), ("https", ":443")].into_iter().find(|(of, _)| *of == scheme).map_or(":", |(_, port)| port);
    for port in [default, ":"] {
        if host.ends_with(port) {
            host.truncate(host.len() - port.len());
            break;
        }
    }
    if path.is_empty() {
        path.push('/');
    }
    (!host.is_empty() && !host.starts_with(':')).then(|| format!("{scheme}://{host}{path}"))
}

/// The host of a page, without its port.
fn host(page: &str) -> String {
    let mut host = page.split('/').nth(2).expect("a page has a host").to_owned();
    let digits = host.chars().rev().take_while(char::is_ascii_digit).count();
    if digits > 0 && host[..host.len() - digits].ends_with(':') {
        host.truncate(host.len() - digits - 1);
    }
    host
}
