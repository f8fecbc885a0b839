//! Pageviews, visitors and bounces: as plain loops count them, wherever the layers are cut and however late an equivalence is.

use std::ops::Range;

use lambdaflow::log::Tick;
use lambdaflow::runs::{AnswerRow, Query};
use lambdaflow::testing::{Answers, Law, Random, answers_after_cuts, check_layers_by_tick};
use lambdaflow_dataflows::super_web_analytics::reference::Reference;
use lambdaflow_dataflows::super_web_analytics::url::{domain, normalized};
use lambdaflow_dataflows::super_web_analytics::{
    Equiv, Fact, Generator, GeneratorOptions, Pageview, Person, program, ranges, super_web_analytics,
};
use serde_json::{Value, json};

/// Three pages in several spellings on two domains, and what is no URL.
const URLS: [&str; 12] = [
    "https://a.example/",
    "HTTPS://A.example:443#top",
    " https://me:secret@a.example?q=http://b.example/x ",
    "https://a.example/News/",
    "https://a.example/News/?page=2",
    "http://b.example:8080/x",
    "http://B.EXAMPLE:8080/x#y/z",
    "http://b.example/x",
    "http://b.example:80/x",
    "https://[::1]/x@y",
    "a.example/News/",
    "https:///News/",
];
/// The hours of a month: where the second month begins, with a week and a day.
const MONTH: u64 = 672;

fn pageview(person: Person, url: &str, at: u64, nonce: u64) -> Fact {
    Fact::Pageview(Pageview { person, url: url.to_owned(), at, nonce })
}

/// Few identities, pages and nonces, so that pageviews are delivered twice, equivalences meet, and one page has many
/// spellings; times on either side of the borders of buckets and of visits.
fn dense(seed: u64) -> Vec<(Tick, Fact)> {
    let mut random = Random::new(seed);
    let equivs = 2 + random.below(20);
    let mut tick = 0;
    let mut log: Vec<(Tick, Fact)> = Vec::new();
    for _ in 0..110 {
        tick += u64::from(random.below(3) == 0);
        let mut person = || match random.below(3) {
            0 => Person::User(random.below(4)),
            _ => Person::Cookie(random.below(8)),
        };
        let (a, b) = (person(), person());
        let fact = match random.below(100) {
            n if n < equivs => Fact::Equiv(Equiv { a, b }),
            n if n < equivs + 10 && !log.is_empty() => log[random.below(log.len() as u64) as usize].1.clone(),
            _ => {
                let hour = [0, MONTH - 1, MONTH, MONTH + 23, MONTH + 24, 2 * MONTH - 1][random.below(6) as usize];
                let second = [0, 1, 1_799, 1_800, 1_801, 3_599][random.below(6) as usize];
                pageview(a, URLS[random.below(URLS.len() as u64) as usize], hour * 3_600 + second, random.below(2))
            }
        };
        log.push((Tick(tick), fact));
    }
    log
}

fn values(rows: &[AnswerRow]) -> Vec<Value> {
    rows.iter().map(|row| json!({"key": row.key, "value": row.value, "count": row.count})).collect()
}

#[track_caller]
fn assert_same(want: &Reference, got: &Answers, context: &str) {
    let answers = want.answers();
    assert_eq!(answers.len() + 1, got.len(), "the views; {context}");
    let malformed: isize = got["errors"].iter().map(|row| row.count).sum();
    assert_eq!(malformed as usize, want.malformed, "pageviews in `errors`; {context}");
    for (view, want) in answers {
        let got = values(&got[view]);
        for (want, got) in want.iter().zip(&got) {
            assert_eq!(want, got, "{view}; {context}");
        }
        assert_eq!(want.len(), got.len(), "rows of {view}; {context}");
    }
}

fn spread(facts: impl Iterator<Item = Fact>, facts_per_tick: u64) -> Vec<(Tick, Fact)> {
    (0..).zip(facts).map(|(i, fact)| (Tick(i / facts_per_tick), fact)).collect()
}

fn facts_through(log: &[(Tick, Fact)], tick: usize) -> impl Iterator<Item = &Fact> {
    log.iter().filter(move |(at, _)| at.0 <= tick as u64).map(|(_, fact)| fact)
}

#[test]
fn the_law_holds_and_every_tick_is_answered_as_by_the_reference() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    for seed in seed..seed.saturating_add(4) {
        let log = dense(seed);
        let (checks, by_tick) = check_layers_by_tick(super_web_analytics, &log, &Law { seed, ..Law::default() });
        assert!(checks > 10, "{checks} checks");
        for (tick, answers) in by_tick.iter().enumerate() {
            assert_same(&Reference::new(facts_through(&log, tick)), answers, &format!("tick {tick}, seed {seed}"));
        }
    }
}

/// A site with few visitors, each of whom is known by several names.
fn generated(seed: u64, facts: usize) -> Vec<(Tick, Fact)> {
    let options = GeneratorOptions { persons: 200, domains: 3, pages: 40, about: 20, seconds_per_fact: 60, ..GeneratorOptions::default() };
    spread(Generator::new(seed, options).take(facts), 50)
}

#[test]
fn generated_facts_are_answered_as_by_the_reference_wherever_they_are_cut() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    let log = generated(seed, 6_000);
    let want = Reference::new(log.iter().map(|(_, fact)| fact));
    let mut random = Random::new(seed);
    for workers in 1..=3 {
        let mut cuts: Vec<Tick> = (0..workers as u64).map(|_| Tick(random.below(121))).collect();
        cuts.sort_unstable();
        let got = answers_after_cuts(super_web_analytics, &log, &cuts, workers, seed);
        assert_same(&want, &got, &format!("{workers} workers, cuts {cuts:?}, seed {seed}"));
    }
}

/// Reads answers as a server would.
fn read(answers: &Answers, view: &str, query: Query) -> Result<Vec<AnswerRow>, String> {
    let Query::Get(keys) = query else { return Err("keys are asked for".to_owned()) };
    let rows = answers.get(view).ok_or_else(|| format!("no view {view}"))?;
    Ok(keys.iter().flat_map(|key| rows.iter().filter(move |row| row.key == *key)).cloned().collect())
}

fn asked(answers: &Answers, url: &str, hours: Range<u64>) -> (u64, u64) {
    let pageviews = ranges::pageviews(url, hours.clone(), |view, query| read(answers, view, query));
    let uniques = ranges::uniques(url, hours, |view, query| read(answers, view, query));
    (pageviews.expect("pageviews are published"), uniques.expect("visitors are published"))
}

#[test]
fn any_range_of_hours_is_answered_from_its_buckets() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    let mut random = Random::new(seed);
    // Three months of one page.
    let options = GeneratorOptions { persons: 60, domains: 1, pages: 1, about: 9, seconds_per_fact: 2_400, ..GeneratorOptions::default() };
    let log = spread(Generator::new(seed, options).take(3_000), 100);
    let url = "https://site0.example/page/1";
    let first = 1_767_225_600 / 3_600 - 48;
    let got = answers_after_cuts(super_web_analytics, &log, &[Tick(20)], 2, seed);
    let want = Reference::new(log.iter().map(|(_, fact)| fact));
    let mut several = 0;
    for _ in 0..60 {
        let start = first + random.below(2_100);
        let end = start + random.below(2_100);
        let answer = asked(&got, url, start..end);
        assert_eq!(answer, want.in_hours(url, start..end), "hours {start}..{end}, seed {seed}");
        several += usize::from(answer.0 > answer.1 && answer.1 > 0);
    }
    assert!(several > 20, "somebody came twice in {several} ranges");
    let month = first - first % MONTH + MONTH;
    assert_eq!(asked(&got, url, month..month + MONTH), want.in_hours(url, month..month + MONTH), "one bucket, seed {seed}");
    assert_eq!(asked(&got, url, first..first), (0, 0));
}

/// An equivalence that comes after a generation was made of the pageviews corrects what it answered, in all views at once.
#[test]
fn a_late_equivalence_corrects_past_answers() {
    let page = "https://a.example/";
    let (phone, laptop, user) = (Person::Cookie(1), Person::Cookie(2), Person::User(9));
    let mut log = vec![
        (Tick(0), pageview(phone, page, 0, 1)),
        (Tick(0), pageview(laptop, page, 1_800, 2)),
        (Tick(1), pageview(phone, page, 90_000, 3)),
        // Delivered again.
        (Tick(1), pageview(laptop, page, 1_800, 2)),
    ];
    let bounces = |visits: u64, bounces: u64, rate: f64| json!({"visits": visits, "bounces": bounces, "rate": rate});
    let check = |log: &[(Tick, Fact)], cut: u64, uniques: [u64; 2], expected: Value, name: Person| {
        let answers = answers_after_cuts(super_web_analytics, log, &[Tick(cut)], 2, 7);
        assert_same(&Reference::new(log.iter().map(|(_, fact)| fact)), &answers, &format!("cut {cut}"));
        assert_eq!([0..24, 0..672].map(|hours| asked(&answers, page, hours)), [(2, uniques[0]), (3, uniques[1])]);
        assert_eq!(answers["bounce_rate"][0].value, expected);
        let persons = read(&answers, "visitors", Query::Get(vec![json!([page, "hour", 25])])).expect("visitors");
        assert_eq!(persons[0].value, json!(name));
    };
    // Two persons, three visits.
    check(&log, 2, [2, 2], bounces(3, 3, 1.0), phone);
    // The phone is a user's: the name changes, the counts do not.
    log.push((Tick(5), Fact::Equiv(Equiv { a: phone, b: user })));
    check(&log, 5, [2, 2], bounces(3, 3, 1.0), user);
    // So is the laptop: one person, who came to the first page again within half an hour.
    log.push((Tick(9), Fact::Equiv(Equiv { a: user, b: laptop })));
    for cut in [0, 2, 6, 9, 10] {
        check(&log, cut, [1, 1], bounces(2, 1, 0.5), user);
    }
}

#[test]
fn spellings_of_a_page_are_one_page() {
    let pages = URLS.map(|url| normalized(url).ok());
    let page = |of: &str| Some(of.to_owned());
    assert_eq!(pages[..3], [(); 3].map(|()| page("https://a.example/")));
    assert_eq!(pages[3..5], [(); 2].map(|()| page("https://a.example/News/")));
    assert_eq!(pages[5..7], [(); 2].map(|()| page("http://b.example:8080/x")));
    assert_eq!(pages[7..9], [(); 2].map(|()| page("http://b.example/x")));
    assert_eq!(pages[9..], [page("https://[::1]/x@y"), None, None]);
    for page in pages.into_iter().flatten() {
        assert_eq!(normalized(&page).as_ref(), Ok(&page), "normalizing again changes nothing");
    }
    assert_eq!(domain("http://b.example:8080/x"), "b.example");
}

#[test]
fn generated_lines_are_read_back() {
    let program = program();
    let lines = (program.samples.as_ref().expect("samples"))(3);
    let facts: Vec<Fact> = lines.take(2_000).map(|line| program.parse(line.as_bytes()).expect("a fact")).collect();
    assert!(facts.iter().eq(&Generator::new(3, GeneratorOptions::default()).take(2_000).collect::<Vec<_>>()));
    let equivs = facts.iter().filter(|fact| matches!(fact, Fact::Equiv(_))).count();
    assert!((60..140).contains(&equivs), "{equivs} equivalences are about 5 %");
}
