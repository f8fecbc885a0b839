//! Computes the answers of every view with plain loops and maps: the oracle for the dataflow.
//!
//! Nothing here is clever or fast, and nothing is shared with the dataflow but the shapes of the rows.
//! `visitors_hll` is missing: a sketch has error bounds, not one right answer.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::Request;
use super::views::{Bounces, Link, ODD_REQUEST, Odd, SESSION_GAP_SECONDS, Session, TOP_PATHS, Traffic};

/// The rows of each view, `{"key": .., "value": .., "count": n}`, ascending by key and value.
pub type Answers = BTreeMap<&'static str, Vec<Value>>;

/// The answers of every view after those requests; their order does not matter.
pub fn answers<'a>(requests: impl IntoIterator<Item = &'a Request>) -> Answers {
    let requests: Vec<&Request> = requests.into_iter().collect();
    let sessions = sessions(&requests);
    BTreeMap::from([
        ("bounce_rate", rows(bounce_rate(&sessions))),
        ("errors", rows(errors(&requests))),
        ("hits", rows(hits(&requests))),
        ("referrers", rows(referrers(&requests))),
        ("sessions", rows(sessions)),
        ("status", rows(status(&requests))),
        ("top_paths", rows(top_paths(&requests))),
        ("visitors", rows(visitors(&requests))),
    ])
}

/// One line per view and row, with the fields of every object in alphabetical order, so that equal
/// answers are equal bytes.
pub fn render(answers: &Answers) -> String {
    let mut text = String::new();
    for (view, rows) in answers {
        for row in rows {
            let mut row = row.clone();
            row.sort_all_objects();
            text.push_str(&format!("{view} {row}\n"));
        }
    }
    text
}

/// Counts equal pairs and puts them in the order of their types: numbers by value, strings by bytes.
fn rows<K: Ord + Serialize, V: Ord + Serialize>(pairs: impl IntoIterator<Item = (K, V)>) -> Vec<Value> {
    let mut counts: BTreeMap<(K, V), u64> = BTreeMap::new();
    for pair in pairs {
        *counts.entry(pair).or_default() += 1;
    }
    counts.into_iter().map(|((key, value), count)| json!({"key": key, "value": value, "count": count})).collect()
}

fn hits<'a>(requests: &[&'a Request]) -> BTreeMap<(&'a str, u64), Traffic> {
    let mut traffic = BTreeMap::new();
    for request in requests {
        let hour = request.at - request.at % 3600;
        let row = traffic.entry((request.path.as_str(), hour)).or_insert(Traffic { hits: 0, bytes: 0 });
        row.hits += 1;
        row.bytes = row.bytes.wrapping_add(request.bytes);
    }
    traffic
}

fn status(requests: &[&Request]) -> BTreeMap<(u64, u16), u64> {
    let mut counts = BTreeMap::new();
    for request in requests {
        let hour = request.at - request.at % 3600;
        *counts.entry((hour, request.status)).or_default() += 1;
    }
    counts
}

fn visitors<'a>(requests: &[&'a Request]) -> BTreeMap<&'a str, u64> {
    let mut hosts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for request in requests {
        hosts.entry(&request.path).or_default().insert(&request.host);
    }
    hosts.into_iter().map(|(path, hosts)| (path, hosts.len() as u64)).collect()
}

fn top_paths<'a>(requests: &[&'a Request]) -> Vec<(&'static str, (u64, &'a str))> {
    let mut hits: BTreeMap<&str, u64> = BTreeMap::new();
    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    for request in requests {
        *hits.entry(&request.path).or_default() += 1;
        let sum = bytes.entry(&request.path).or_default();
        *sum = sum.wrapping_add(request.bytes);
    }
    let mut top = Vec::new();
    for (key, totals) in [("hits", hits), ("bytes", bytes)] {
        let mut ranked: Vec<(u64, &str)> = totals.into_iter().map(|(path, n)| (n, path)).collect();
        ranked.sort();
        ranked.reverse();
        ranked.truncate(TOP_PATHS);
        top.extend(ranked.into_iter().map(|row| (key, row)));
    }
    top
}

fn sessions<'a>(requests: &[&'a Request]) -> Vec<(&'a str, Session)> {
    let mut by_host: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
    for request in requests {
        by_host.entry(&request.host).or_default().push((request.at, &request.path));
    }
    let mut sessions: Vec<(&str, Session)> = Vec::new();
    for (host, mut visits) in by_host {
        visits.sort();
        let mut open: Option<Session> = None;
        for (at, path) in visits {
            match &mut open {
                Some(session) if at - session.end <= SESSION_GAP_SECONDS => {
                    session.end = at;
                    session.hits += 1;
                }
                _ => {
                    let next = Session { start: at, end: at, hits: 1, entry: path.to_owned() };
                    sessions.extend(open.replace(next).map(|closed| (host, closed)));
                }
            }
        }
        sessions.extend(open.map(|closed| (host, closed)));
    }
    sessions
}

fn bounce_rate(sessions: &[(&str, Session)]) -> BTreeMap<u64, Bounces> {
    let mut days = BTreeMap::new();
    for (_, session) in sessions {
        let day = session.start - session.start % 86_400;
        let row = days.entry(day).or_insert(Bounces { sessions: 0, bounces: 0 });
        row.sessions += 1;
        if session.hits == 1 {
            row.bounces += 1;
        }
    }
    days
}

fn referrers<'a>(requests: &[&'a Request]) -> Vec<(&'a str, Link)> {
    let mut links: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut statuses: BTreeMap<&str, BTreeSet<u16>> = BTreeMap::new();
    for request in requests {
        statuses.entry(&request.path).or_default().insert(request.status);
        if request.referrer != "-" {
            *links.entry((&request.referrer, &request.path)).or_default() += 1;
        }
    }
    let mut rows = Vec::new();
    for ((referrer, path), hits) in links {
        for &status in &statuses[path] {
            let link = Link { path: path.to_owned(), hits, status };
            rows.push((referrer, link));
        }
    }
    rows
}

/// Rows of the view `errors` in the form the reference has: what was odd, without its place in the log.
///
/// # Panics
/// If a row does not show a request.
pub fn odd_requests(errors: &[Value]) -> Vec<Value> {
    rows(errors.iter().flat_map(|row| {
        let shown = row["value"]["row"].as_str().expect("a quarantined event is shown");
        let request: Request = serde_json::from_str(shown).expect("it is shown as JSON");
        let times = row["count"].as_u64().expect("a multiplicity") as usize;
        let reason = row["key"].as_str().expect("the key is the message").to_owned();
        vec![(reason, Odd { at: request.at, host: request.host, request: request.path }); times]
    }))
}

fn errors(requests: &[&Request]) -> Vec<(&'static str, Odd)> {
    requests
        .iter()
        .filter(|request| request.method.is_empty())
        .map(|request| {
            let odd = Odd { at: request.at, host: request.host.clone(), request: request.path.clone() };
            (ODD_REQUEST, odd)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse_line;
    use super::*;

    /// `(at, host, path, status, bytes, referrer)`
    type Short = (u64, &'static str, &'static str, u16, u64, &'static str);

    fn answers_of(requests: &[Short]) -> Answers {
        let requests: Vec<Request> = requests
            .iter()
            .map(|&(at, host, path, status, bytes, referrer)| Request {
                at,
                host: host.to_owned(),
                user: "-".to_owned(),
                method: "GET".to_owned(),
                path: path.to_owned(),
                protocol: "HTTP/1.1".to_owned(),
                status,
                bytes,
                referrer: referrer.to_owned(),
                agent: "-".to_owned(),
            })
            .collect();
        answers(&requests)
    }

    fn row(key: Value, value: Value) -> Value {
        json!({"key": key, "value": value, "count": 1})
    }

    #[test]
    fn no_requests_give_every_view_without_rows() {
        let answers = answers(&[]);
        let views: Vec<&str> = answers.keys().copied().collect();
        let all = "bounce_rate errors hits referrers sessions status top_paths visitors";
        assert_eq!(views.join(" "), all);
        assert_eq!(render(&answers), "");
    }

    #[test]
    fn hits_statuses_and_visitors_are_counted_by_hour_and_path() {
        let answers = answers_of(&[
            (10_799, "a", "/", 404, 1, "-"),
            (7_200, "a", "/", 200, 2, "-"),
            (10_800, "b", "/", 200, u64::MAX, "-"),
            (10_801, "b", "/", 200, 5, "-"),
        ]);
        assert_eq!(
            answers["hits"],
            [row(json!(["/", 7_200]), json!({"hits": 2, "bytes": 3})), row(json!(["/", 10_800]), json!({"hits": 2, "bytes": 4})),]
        );
        assert_eq!(
            answers["status"],
            [row(json!([7_200, 200]), json!(1)), row(json!([7_200, 404]), json!(1)), row(json!([10_800, 200]), json!(2)),]
        );
        assert_eq!(answers["visitors"], [row(json!("/"), json!(2))]);
    }

    #[test]
    fn the_ten_greatest_paths_break_ties_by_the_later_name() {
        let paths = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
        let mut requests: Vec<Short> = Vec::new();
        for path in paths {
            requests.push((0, "h", path, 200, 1, "-"));
        }
        requests.push((9_999, "h", "a", 200, 0, "-"));
        let answers = answers_of(&requests);
        let expected = [("bytes", 1, "k"), ("hits", 2, "a")];
        for (view_rows, (key, n, greatest)) in answers["top_paths"].chunks(10).zip(expected) {
            assert_eq!(view_rows[9], row(json!(key), json!([n, greatest])));
            // `b` is the least by hits; `a` by bytes.
            assert!(!view_rows.contains(&row(json!(key), json!([1, "a"]))));
        }
        assert_eq!(answers["top_paths"].len(), 20);
        assert!(!answers["top_paths"].contains(&row(json!("hits"), json!([1, "b"]))));
    }

    #[test]
    fn a_gap_of_more_than_half_an_hour_starts_a_session_whatever_the_order_of_arrival() {
        let answers = answers_of(&[
            (90_000, "h", "/late", 200, 0, "-"),
            (1_900, "h", "/b", 200, 0, "-"),
            (100, "h", "/z", 200, 0, "-"),
            (100, "h", "/a", 200, 0, "-"),
            (3_701, "h", "/c", 200, 0, "-"),
            (100, "g", "/", 200, 0, "-"),
        ]);
        let session = |start: u64, end: u64, hits: u64, entry: &str| json!({"start": start, "end": end, "hits": hits, "entry": entry});
        assert_eq!(
            answers["sessions"],
            [
                row(json!("g"), session(100, 100, 1, "/")),
                row(json!("h"), session(100, 1_900, 3, "/a")),
                row(json!("h"), session(3_701, 3_701, 1, "/c")),
                row(json!("h"), session(90_000, 90_000, 1, "/late")),
            ]
        );
        let first_day = json!({"sessions": 3, "bounces": 2, "rate": 2.0 / 3.0});
        let second_day = json!({"sessions": 1, "bounces": 1, "rate": 1.0});
        assert_eq!(answers["bounce_rate"], [row(json!(0), first_day), row(json!(86_400), second_day)]);
    }

    #[test]
    fn a_link_has_one_row_for_each_status_its_path_was_answered_with_by_anyone() {
        let answers = answers_of(&[
            (0, "a", "/x", 200, 0, "there"),
            (1, "b", "/x", 200, 0, "there"),
            (2, "c", "/x", 404, 0, "-"),
            (3, "c", "/y", 500, 0, "there"),
        ]);
        let link = |path: &str, hits: u64, status: u16| {
            let link = json!({"path": path, "hits": hits, "status": status});
            row(json!("there"), link)
        };
        assert_eq!(answers["referrers"], [link("/x", 2, 200), link("/x", 2, 404), link("/y", 1, 500)]);
    }

    #[test]
    fn equal_odd_requests_are_one_row_with_a_count_and_bytes_are_canonical() {
        let line = br#"h - - [01/Jan/1970:00:00:07 +0000] "quit" 400 0"#;
        let odd = parse_line(line).unwrap();
        let answers = answers([&odd, &odd]);
        let value = json!({"at": 7, "host": "h", "request": "quit"});
        assert_eq!(answers["errors"], [json!({"key": ODD_REQUEST, "value": value, "count": 2})]);
        let expected = r#"bounce_rate {"count":1,"key":0,"value":{"bounces":0,"rate":0.0,"sessions":1}}
errors {"count":2,"key":"request line is not METHOD TARGET PROTOCOL","value":{"at":7,"host":"h","request":"quit"}}
hits {"count":1,"key":["quit",0],"value":{"bytes":0,"hits":2}}
sessions {"count":1,"key":"h","value":{"end":7,"entry":"quit","hits":2,"start":7}}
status {"count":1,"key":[0,400],"value":2}
top_paths {"count":1,"key":"bytes","value":[0,"quit"]}
top_paths {"count":1,"key":"hits","value":[2,"quit"]}
visitors {"count":1,"key":"quit","value":1}
"#;
        assert_eq!(render(&answers), expected);
    }
}
