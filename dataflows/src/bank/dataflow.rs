//! The dataflow: transfers in, six views out. Batch and speed layer both run this definition.

use lambdaflow::prelude::*;
use lambdaflow::runs::Data;

use super::Transfer;

const DAY_SECONDS: u64 = 86_400;

fn day(at: u64) -> u64 {
    at - at % DAY_SECONDS
}

/// Publishes `credits`, `debits` and `balance` by account, `total`, and `daily` and `daily_total` by the day of the
/// transfers. All amounts are cents, modulo 2^64.
pub fn bank(transfers: Events<'_, Transfer>, views: &mut Views) {
    let credits = transfers.clone().aggregate::<u64, Sum>(|t, groups| groups.add(*t.to, Sum(*t.amount)));
    let debits = transfers.clone().aggregate::<u64, Sum>(|t, groups| groups.add(*t.from, Sum(*t.amount)));
    let balance = balances(credits.clone().rows(), debits.clone().rows());
    views.publish("credits", credits).key(&["account"]).value(&["credit"]);
    views.publish("debits", debits).key(&["account"]).value(&["debit"]);
    views.publish("balance", balance.clone()).key(&["account"]).value(&["balance"]);
    let total = balance.map(|(_account, balance)| ((), balance)).aggregate(|balance| Sum(*balance)).rows();
    views.publish("total", total.map(|((), Sum(total))| ((), total))).key(&[]).value(&["total"]);

    // A late transfer changes a day that was answered long ago; it does so on both sides at once.
    let credits = transfers.clone().aggregate::<(u64, u64), Sum>(|t, groups| groups.add((day(*t.at), *t.to), Sum(*t.amount)));
    let debits = transfers.aggregate::<(u64, u64), Sum>(|t, groups| groups.add((day(*t.at), *t.from), Sum(*t.amount)));
    let daily = balances(credits.rows(), debits.rows());
    views.publish("daily", daily.clone()).key(&["day", "account"]).value(&["balance"]);
    let total = daily.map(|((day, _account), balance)| (day, balance)).aggregate(|balance| Sum(*balance)).rows();
    views.publish("daily_total", total.map(|(day, Sum(total))| (day, total))).key(&["day"]).value(&["total"]);
}

/// What came in less what went out: an outer join, since some are only paid and some only pay.
fn balances<'s, K: Data>(credits: Flow<'s, (K, Sum)>, debits: Flow<'s, (K, Sum)>) -> Flow<'s, (K, i64)> {
    let cents = |side: Option<Sum>| side.map_or(0, |Sum(cents)| cents);
    credits.full_join(debits).map(move |(key, (credit, debit))| (key, cents(credit).wrapping_sub(cents(debit))))
}
