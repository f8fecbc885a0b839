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

fn visitors(visits: Events<'_, Visit>, views: &mut Views) {
    let rows = visits.map(|visit| (*visit.user, *visit.user));
    views.publish("visitors", rows.aggregate::<HyperLogLog>(|user| HyperLogLog::of(user)));
}

fn main() {
    lambdaflow::main("visitors", visitors);
}
