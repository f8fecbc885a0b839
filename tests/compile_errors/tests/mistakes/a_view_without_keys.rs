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

fn users(visits: Events<'_, Visit>, views: &mut Views) {
    views.publish("users", visits.map(|visit| *visit.user).distinct());
}

fn main() {
    lambdaflow::main("users", users);
}
