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

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
struct Page {
    name: String,
}

fn pages(visits: Events<'_, Visit>, views: &mut Views) {
    let pages = visits.map(|visit| Page { name: String::from_utf8_lossy(visit.page).into_owned() });
    views.publish("pages", pages.count());
}

fn main() {
    lambdaflow::main("pages", pages);
}
