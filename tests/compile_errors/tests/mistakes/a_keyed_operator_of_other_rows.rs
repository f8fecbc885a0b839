use lambdaflow::prelude::*;

#[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
struct Visit {
    user: u64,
    page: String,
}

impl Event for Visit {
    const NAME: &str = "Visit";
    const VERSION: u32 = 1;
    const FIELDS: &[&str] = &["user: u64", "page: String"];
}

struct Longest;

impl Keyed for Longest {
    type Key = u64;
    type Row = String;
    type State = u64;
    type Out = u64;

    fn update(&mut self, _: &u64, _: &mut u64, _: &[(String, Diff)]) {}
    fn results(&mut self, _: &u64, _: &u64, _: &mut Vec<(u64, Diff)>) {}
}

fn longest(visits: Events<'_, Visit>, views: &mut Views) {
    views.publish("longest", visits.map(|visit| (*visit.user, *visit.user)).keyed("Longest", Longest));
}

fn main() {
    lambdaflow::main("longest", longest);
}
