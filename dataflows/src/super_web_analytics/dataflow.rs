//! The dataflow: facts in, four views out. Batch and speed layer both run this definition.

use lambdaflow::prelude::*;

use super::event::{EquivReference, Fact, FactReference, PageviewReference, Person};
use super::url::{UrlError, domain, normalized};
use super::views::{Bounces, Bucket, Granularity, VISIT_GAP_SECONDS};

/// A pageview that counts: who, the normalized URL, when in seconds, the nonce.
type Seen = (Person, String, u64, u64);

fn hour(at: u64) -> u64 {
    at / 3_600
}

/// Publishes `pageviews`, `visitors`, `uniques` and `bounce_rate`; pageviews of what is no URL are in `errors`.
pub fn super_web_analytics(facts: Events<'_, Fact>, views: &mut Views) {
    let pageviews = pageviews(&facts);
    let counted = pageviews.clone().flat_map(|(_, url, at, _)| Granularity::ALL.map(|of| ((url.clone(), of, of.bucket(hour(at))), ())));
    views.publish("pageviews", counted.aggregate(|()| Count::one())).key(&["url", "granularity", "bucket"]).value(&["pageviews"]);

    let equal = facts.flat_map(|fact| match fact {
        FactReference::Equiv(EquivReference { a, b }) => Some((Person::into_owned(a), Person::into_owned(b))),
        FactReference::Pageview(_) => None,
    });
    let by_person = pageviews.map(|(person, url, at, _nonce)| (person, (url, at))).normalize(equal);

    let visitors = visitors(by_person.clone());
    views.publish("visitors", visitors.clone()).key(&["url", "granularity", "bucket"]).value(&["person"]);
    let uniques = visitors.map(|(bucket, _person)| (bucket, ())).aggregate(|()| Count::one());
    views.publish("uniques", uniques).key(&["url", "granularity", "bucket"]).value(&["visitors"]);

    views.publish("bounce_rate", bounce_rate(by_person)).key(&["domain"]).value(&["visits", "bounces", "rate"]);
}

/// Each pageview once.
fn pageviews<'s>(facts: &Events<'s, Fact>) -> Flow<'s, Seen> {
    let delivered = facts.clone().try_aggregate::<Seen, Count, UrlError>(|fact, groups| {
        if let FactReference::Pageview(PageviewReference { person, url, at, nonce }) = fact {
            let url = normalized(&String::from_utf8_lossy(url))?;
            groups.add((Person::into_owned(person), &*url, *at, *nonce), Count::one());
        }
        Ok(())
    });
    delivered.keys()
}

/// The persons in each bucket. A person who was there in an hour was there on its day, so each granularity is made of the
/// one before, which has fewer rows than the pageviews.
fn visitors<'s>(by_person: Flow<'s, (Person, (String, u64))>) -> Flow<'s, (Bucket, Person)> {
    let mut finer = by_person.map(|(person, (url, at))| ((url, Granularity::Hour, hour(at)), person)).distinct();
    let mut all = finer.clone();
    for coarser in &Granularity::ALL[1..] {
        finer = finer.map(|((url, _, hour), person)| ((url, *coarser, coarser.bucket(hour)), person)).distinct();
        all = all.concat(finer.clone());
    }
    all
}

fn bounce_rate<'s>(by_person: Flow<'s, (Person, (String, u64))>) -> Flow<'s, (String, Bounces)> {
    let times = by_person.map(|(person, (url, at))| ((domain(&url).to_owned(), person), at));
    let of_person = times.reduce_named("Visits", |_, times, counts| counts.push((visits(times), 1)));
    let of_domain =
        of_person.map(|((domain, _person), counts)| (domain, counts)).aggregate(|(visits, bounces)| (Sum::of(*visits), Sum::of(*bounces)));
    of_domain.rows().map(|(domain, (Sum(visits), Sum(bounces)))| (domain, Bounces { visits: visits as u64, bounces: bounces as u64 }))
}

/// The visits that times of pageviews make, and how many of them are bounces.
fn visits(times: &[(&u64, Diff)]) -> (u64, u64) {
    let (mut visits, mut bounces) = (0, 0);
    for visit in times.chunk_by(|(before, _), (after, _)| *after - *before <= VISIT_GAP_SECONDS) {
        visits += 1;
        bounces += u64::from(visit.iter().map(|(_, n)| n).sum::<Diff>() == 1);
    }
    (visits, bounces)
}
