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

fn pages(visits: Events<'_, Visit>, views: &mut Views) {
    views.publish("pages", visits.aggregate::<String, Count>(|visit, groups| groups.add(*visit.user, Count::one())));
}

fn main() {
    lambdaflow::main("pages", pages);
}
