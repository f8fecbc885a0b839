//! The facts that come in.

use std::hash::{Hash, Hasher};

use columnar::{Columnar, Push, Ref};
use lambdaflow::operators::KeyRef;
use lambdaflow::prelude::Event;
use serde::{Deserialize, Serialize};

/// Somebody, by one of the names that they have. As JSON: `{"user": 7}`, `{"cookie": 99}`.
///
/// In this order, so that a user is the least of a person's identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
#[serde(rename_all = "lowercase")]
pub enum Person {
    /// The number of a user who is logged in.
    User(u64),
    /// The number that a cookie carries.
    Cookie(u64),
}

/// Something that is true for ever. As JSON: `{"pageview": {"person": {"cookie": 99}, "url": "https://..", "at": 0, "nonce": 5}}`,
/// `{"equiv": {"a": {"cookie": 99}, "b": {"user": 7}}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Columnar)]
#[serde(rename_all = "lowercase")]
pub enum Fact {
    /// Somebody looked at a page.
    Pageview(Pageview),
    /// Two identities are of one person.
    Equiv(Equiv),
}

/// Somebody looked at a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Columnar)]
#[serde(deny_unknown_fields)]
pub struct Pageview {
    /// Who, by the name they had then.
    pub person: Person,
    /// The page, as the browser sent it.
    pub url: String,
    /// Event time: UTC, in seconds since 1970-01-01T00:00:00Z.
    pub at: u64,
    /// A random number, which tells a second pageview from a second delivery of the first.
    pub nonce: u64,
}

/// Two identities are of one person; which is named first does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Columnar)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "there is nothing to say of each")]
pub struct Equiv {
    pub a: Person,
    pub b: Person,
}

impl Event for Fact {
    const NAME: &'static str = "super_web_analytics.Fact";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &[
        "Pageview: person (User u64 | Cookie u64), url String, at u64, nonce u64",
        "Equiv: a (User u64 | Cookie u64), b (User u64 | Cookie u64)",
    ];
}

impl KeyRef<Person> for Person {
    fn feed<H: Hasher>(&self, hasher: &mut H) {
        self.hash(hasher);
    }
    fn is(&self, stored: Ref<'_, Person>) -> bool {
        *self == Person::into_owned(stored)
    }
    fn store(self, column: &mut <Person as Columnar>::Container) {
        Push::<&Person>::push(column, &self);
    }
}
