//! The dataflow: requests in, nine views out. Batch and speed layer both run this definition.

use lambdaflow::log::Event;
use lambdaflow::prelude::*;

use super::views::{Bounces, Link, ODD_REQUEST, SESSION_GAP_SECONDS, Session, TOP_PATHS};
use super::{Request, RequestReference};

impl Event for Request {
    const NAME: &'static str = "web_analytics.Request";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &[
        "at: u64",
        "host: String",
        "user: String",
        "method: String",
        "path: String",
        "protocol: String",
        "status: u16",
        "bytes: u64",
        "referrer: String",
        "agent: String",
    ];
}

lambdaflow::monoid_struct! {
    /// Requests, and the bytes they were answered with.
    pub struct Hits { pub hits: Count, pub bytes: Sum }
}

/// A request as the log lends it.
type Lent<'a> = columnar::Ref<'a, Request>;

fn hour(at: u64) -> u64 {
    at - at % 3_600
}

fn day(at: u64) -> u64 {
    at - at % 86_400
}

fn one_hit(request: Lent<'_>) -> Hits {
    let RequestReference { bytes, .. } = request;
    Hits { hits: Count::one(), bytes: Sum::of(*bytes) }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Publishes `hits`, `status`, `visitors`, `visitors_hll`, `top_paths`, `sessions`, `bounce_rate` and `referrers`; odd requests are
/// in `errors`.
pub fn web_analytics(requests: Events<'_, Request>, views: &mut Views) {
    let hits = requests.clone().aggregate::<(String, u64), Hits>(|r, groups| groups.add((r.path, hour(*r.at)), one_hit(r)));
    views.publish("hits", hits).key(&["path", "hour"]).value(&["hits", "bytes"]);

    let status = requests.clone().aggregate::<(u64, u16), Count>(|r, groups| groups.add((hour(*r.at), *r.status), Count::one()));
    views.publish("status", status).key(&["hour", "status"]).value(&["hits"]);

    let seen = requests.clone().aggregate::<(String, String), Count>(|r, groups| groups.add((r.path, r.host), Count::one()));
    let visitors = seen.keys().map(|(path, _host)| path).count();
    views.publish("visitors", visitors).key(&["path"]).value(&["visitors"]);

    let sketched = requests.clone().aggregate::<String, HyperLogLog>(|r, groups| groups.add(r.path, HyperLogLog::of(r.host)));
    views.publish("visitors_hll", sketched).key(&["path"]).value(&["visitors"]);

    let per_path = requests.clone().aggregate::<String, Hits>(|r, groups| groups.add(r.path, one_hit(r))).rows();
    let by_hits = per_path.clone().map(|(path, total)| (total.hits.0 as i64, path)).top_k(TOP_PATHS, |(total, _path)| *total);
    let by_bytes = per_path.map(|(path, total)| (total.bytes.0, path)).top_k(TOP_PATHS, |(total, _path)| *total);
    let top = by_hits.map(|row| ("hits".to_owned(), row)).concat(by_bytes.map(|row| ("bytes".to_owned(), row)));
    views.publish("top_paths", top).key(&["measure"]).value(&["total", "path"]);

    // Late requests change sessions that were answered before; the reduction retracts those and puts the right ones.
    let by_host = requests.clone().map(|r| (text(r.host), (*r.at, text(r.path))));
    let sessions = by_host.reduce_named("Sessions", |_host, requests, sessions| sessions_of(requests, sessions));
    views.publish("sessions", sessions.clone()).key(&["host"]).value(&["start", "end", "hits", "entry"]);

    let bounces = sessions.map(|(_host, session)| (day(session.start), session.hits == 1));
    let per_day = bounces.aggregate::<(Count, Count)>(|bounced| (Count::one(), Count(isize::from(*bounced)))).rows();
    let bounce_rate = per_day.map(|(day, (sessions, bounces))| (day, Bounces { sessions: sessions.0 as u64, bounces: bounces.0 as u64 }));
    views.publish("bounce_rate", bounce_rate).key(&["day"]).value(&["sessions", "bounces", "rate"]);

    let links = requests.clone().aggregate::<(String, String), Count>(|r, groups| {
        if r.referrer != b"-" {
            groups.add((r.path, r.referrer), Count::one());
        }
    });
    let links = links.rows().map(|((path, referrer), hits)| (path, (referrer, hits)));
    let answered = requests.clone().aggregate::<(String, u16), Count>(|r, groups| groups.add((r.path, *r.status), Count::one())).keys();
    let referrers = links.join_map(answered, |path, (referrer, hits), status| {
        (referrer.clone(), Link { path: path.clone(), hits: hits.0 as u64, status: *status })
    });
    views.publish("referrers", referrers).key(&["referrer"]).value(&["path", "hits", "status"]);

    // An odd request counts like any other, and is shown with its place in the log.
    requests.validate(|r| if r.method.is_empty() { Err(ODD_REQUEST) } else { Ok(()) });
}

/// Cuts a host's requests, in the order of (time, path), where it was away for too long.
fn sessions_of(requests: &[(&(u64, String), isize)], sessions: &mut Vec<(Session, isize)>) {
    let mut current: Option<Session> = None;
    for ((at, path), n) in requests.iter().map(|(request, n)| (*request, *n)) {
        match &mut current {
            Some(session) if at - session.end <= SESSION_GAP_SECONDS => {
                session.end = *at;
                session.hits += n as u64;
            }
            _ => sessions
                .extend(current.replace(Session { start: *at, end: *at, hits: n as u64, entry: path.clone() }).map(|session| (session, 1))),
        }
    }
    sessions.extend(current.map(|session| (session, 1)));
}
