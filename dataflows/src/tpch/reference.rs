//! Computes the answers of every query with plain loops and maps: the oracle for the dataflow.
//!
//! It reads each query off the specification, from the rows that are left, and shares nothing with the dataflow but the
//! shapes of the rows and the parameters. Ties at the end of a ranking go to the greater key, as the views document.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::rows::{Change, Customer, Lineitem, Nation, Orders, Part, Region, Row, Supplier};
use super::views::parameters::*;
use super::views::{LargeOrder, Lines, Pricing, Promotion, Returning, Shipping, TopSupplier};

/// The rows of each view, `{"key": .., "value": .., "count": n}`, ascending by key.
pub type Answers = BTreeMap<&'static str, Vec<Value>>;

/// The tables: the rows that are left.
#[derive(Default)]
struct Database<'a> {
    regions: Vec<&'a Region>,
    nations: BTreeMap<u32, &'a Nation>,
    parts: BTreeMap<u32, &'a Part>,
    suppliers: BTreeMap<u32, &'a Supplier>,
    customers: BTreeMap<u32, &'a Customer>,
    orders: BTreeMap<u64, &'a Orders>,
    /// By order; `lines` has those of orders that are not there, too.
    lines: BTreeMap<u64, Vec<&'a Lineitem>>,
}

impl<'a> Database<'a> {
    fn new(changes: impl IntoIterator<Item = &'a Change>) -> Self {
        let mut left: BTreeMap<&Row, i64> = BTreeMap::new();
        for change in changes {
            *left.entry(&change.row).or_default() += if change.delete { -1 } else { 1 };
        }
        let mut database = Self::default();
        for (row, n) in left {
            assert!(n == 0 || n == 1, "{row:?} is there {n} times");
            if n == 0 {
                continue;
            }
            let twice = match row {
                Row::Region(row) => {
                    database.regions.push(row);
                    false
                }
                Row::Nation(row) => database.nations.insert(row.n_nationkey, row).is_some(),
                Row::Part(row) => database.parts.insert(row.p_partkey, row).is_some(),
                Row::Supplier(row) => database.suppliers.insert(row.s_suppkey, row).is_some(),
                Row::Partsupp(_) => false,
                Row::Customer(row) => database.customers.insert(row.c_custkey, row).is_some(),
                Row::Orders(row) => database.orders.insert(row.o_orderkey, row).is_some(),
                Row::Lineitem(row) => {
                    database.lines.entry(row.l_orderkey).or_default().push(row);
                    false
                }
            };
            assert!(!twice, "the key of {row:?} is there twice");
        }
        database
    }

    /// Every line with its order.
    fn ordered_lines(&self) -> impl Iterator<Item = (&'a Orders, &'a Lineitem)> + use<'_, 'a> {
        self.orders.iter().flat_map(|(key, order)| self.lines.get(key).into_iter().flatten().map(|line| (*order, *line)))
    }

    fn all_lines(&self) -> impl Iterator<Item = &'a Lineitem> + use<'_, 'a> {
        self.lines.values().flatten().copied()
    }
}

/// The answers of every query after those changes; their order does not matter.
///
/// # Panics
/// If a row or a key is left more than once: SQL's answers and the dataflow's are then not the same question.
pub fn answers<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Answers {
    let database = Database::new(changes);
    BTreeMap::from([
        ("q1", rows(q1(&database))),
        ("q3", rows(q3(&database))),
        ("q4", rows(q4(&database))),
        ("q5", rows(q5(&database))),
        ("q6", rows(q6(&database))),
        ("q10", rows(q10(&database))),
        ("q12", rows(q12(&database))),
        ("q13", rows(q13(&database))),
        ("q14", rows(q14(&database))),
        ("q15", rows(q15(&database))),
        ("q18", rows(q18(&database))),
        ("q21", rows(q21(&database))),
    ])
}

fn rows<K: Ord + Serialize, V: Serialize>(rows: BTreeMap<K, V>) -> Vec<Value> {
    rows.into_iter().map(|(key, value)| json!({"key": key, "value": value, "count": 1})).collect()
}

/// The rows that come first in an order.
fn first<K: Ord, V, O: Ord>(n: usize, rows: impl IntoIterator<Item = (K, V)>, order: impl Fn(&K, &V) -> O) -> BTreeMap<K, V> {
    let mut rows: Vec<(K, V)> = rows.into_iter().collect();
    rows.sort_by_key(|(key, value)| order(key, value));
    rows.truncate(n);
    rows.into_iter().collect()
}

fn discounted(line: &Lineitem) -> i64 {
    line.l_extendedprice * (100 - line.l_discount)
}

fn q1<'a>(database: &Database<'a>) -> BTreeMap<(&'a str, &'a str), Pricing> {
    let mut groups = BTreeMap::new();
    for line in database.all_lines() {
        if line.l_shipdate > Q1_SHIPPED_TO {
            continue;
        }
        let none = Pricing { sum_qty: 0, sum_base_price: 0, sum_disc_price: 0, sum_charge: 0, sum_discount: 0, count_order: 0 };
        let group = groups.entry((line.l_returnflag.as_str(), line.l_linestatus.as_str())).or_insert(none);
        group.sum_qty += line.l_quantity;
        group.sum_base_price += line.l_extendedprice;
        group.sum_disc_price += line.l_extendedprice * (100 - line.l_discount);
        group.sum_charge += line.l_extendedprice * (100 - line.l_discount) * (100 + line.l_tax);
        group.sum_discount += line.l_discount;
        group.count_order += 1;
    }
    groups
}

fn q3(database: &Database) -> BTreeMap<u64, Shipping> {
    let mut open: BTreeMap<u64, Shipping> = BTreeMap::new();
    for (order, line) in database.ordered_lines() {
        let Some(customer) = database.customers.get(&order.o_custkey) else { continue };
        if customer.c_mktsegment == Q3_SEGMENT && order.o_orderdate < Q3_DAY && line.l_shipdate > Q3_DAY {
            let none = Shipping { revenue: 0, o_orderdate: order.o_orderdate, o_shippriority: order.o_shippriority };
            open.entry(order.o_orderkey).or_insert(none).revenue += discounted(line);
        }
    }
    first(ROWS[0], open, |key, row| (-row.revenue, row.o_orderdate, u64::MAX - key))
}

fn q4<'a>(database: &Database<'a>) -> BTreeMap<&'a str, i64> {
    let mut counts = BTreeMap::new();
    for order in database.orders.values() {
        let lines = database.lines.get(&order.o_orderkey).map_or(&[][..], |lines| lines);
        let in_quarter = order.o_orderdate >= Q4_ORDERED.0 && order.o_orderdate < Q4_ORDERED.1;
        if in_quarter && lines.iter().any(|line| line.l_commitdate < line.l_receiptdate) {
            *counts.entry(order.o_orderpriority.as_str()).or_default() += 1;
        }
    }
    counts
}

fn q5<'a>(database: &Database<'a>) -> BTreeMap<&'a str, i64> {
    let regions: Vec<u32> = database.regions.iter().filter(|region| region.r_name == Q5_REGION).map(|region| region.r_regionkey).collect();
    let mut revenue = BTreeMap::new();
    for (order, line) in database.ordered_lines() {
        let customer = database.customers.get(&order.o_custkey);
        let supplier = database.suppliers.get(&line.l_suppkey);
        let (Some(customer), Some(supplier)) = (customer, supplier) else { continue };
        let Some(nation) = database.nations.get(&supplier.s_nationkey) else { continue };
        let in_year = order.o_orderdate >= Q5_ORDERED.0 && order.o_orderdate < Q5_ORDERED.1;
        if in_year && customer.c_nationkey == supplier.s_nationkey && regions.contains(&nation.n_regionkey) {
            *revenue.entry(nation.n_name.as_str()).or_default() += discounted(line);
        }
    }
    revenue
}

fn q6(database: &Database) -> BTreeMap<(), i64> {
    let mut revenue = BTreeMap::new();
    for line in database.all_lines() {
        let in_year = line.l_shipdate >= Q6_SHIPPED.0 && line.l_shipdate < Q6_SHIPPED.1;
        if in_year && line.l_discount >= Q6_DISCOUNT.0 && line.l_discount <= Q6_DISCOUNT.1 && line.l_quantity < Q6_QUANTITY {
            *revenue.entry(()).or_default() += line.l_extendedprice * line.l_discount;
        }
    }
    revenue
}

fn q10(database: &Database) -> BTreeMap<u32, Returning> {
    let mut returning: BTreeMap<u32, Returning> = BTreeMap::new();
    for (order, line) in database.ordered_lines() {
        let Some(customer) = database.customers.get(&order.o_custkey) else { continue };
        let Some(nation) = database.nations.get(&customer.c_nationkey) else { continue };
        if order.o_orderdate >= Q10_ORDERED.0 && order.o_orderdate < Q10_ORDERED.1 && line.l_returnflag == "R" {
            let row = returning.entry(customer.c_custkey).or_insert_with(|| Returning {
                revenue: 0,
                c_name: customer.c_name.clone(),
                c_acctbal: customer.c_acctbal,
                n_name: nation.n_name.clone(),
                c_address: customer.c_address.clone(),
                c_phone: customer.c_phone.clone(),
                c_comment: customer.c_comment.clone(),
            });
            row.revenue += discounted(line);
        }
    }
    first(ROWS[1], returning, |key, row| (-row.revenue, u32::MAX - key))
}

fn q12<'a>(database: &Database<'a>) -> BTreeMap<&'a str, Lines> {
    let mut counts = BTreeMap::new();
    for (order, line) in database.ordered_lines() {
        let in_year = line.l_receiptdate >= Q12_RECEIVED.0 && line.l_receiptdate < Q12_RECEIVED.1;
        let late = line.l_commitdate < line.l_receiptdate && line.l_shipdate < line.l_commitdate;
        if in_year && late && Q12_MODES.contains(&line.l_shipmode.as_str()) {
            let row = counts.entry(line.l_shipmode.as_str()).or_insert(Lines { high_line_count: 0, low_line_count: 0 });
            match order.o_orderpriority.as_str() {
                "1-URGENT" | "2-HIGH" => row.high_line_count += 1,
                _ => row.low_line_count += 1,
            }
        }
    }
    counts
}

fn q13(database: &Database) -> BTreeMap<i64, i64> {
    let mut orders: BTreeMap<u32, i64> = BTreeMap::new();
    for order in database.orders.values() {
        // Like `%special%requests%`: the first occurrence of one, and the other in the rest.
        let special = order.o_comment.split_once(Q13_WORDS[0]).is_some_and(|(_, rest)| rest.contains(Q13_WORDS[1]));
        if !special {
            *orders.entry(order.o_custkey).or_default() += 1;
        }
    }
    let mut customers = BTreeMap::new();
    for customer in database.customers.keys() {
        *customers.entry(orders.get(customer).copied().unwrap_or(0)).or_default() += 1;
    }
    customers
}

fn q14(database: &Database) -> BTreeMap<(), Promotion> {
    let mut sums = BTreeMap::new();
    for line in database.all_lines().filter(|line| line.l_shipdate >= Q14_SHIPPED.0 && line.l_shipdate < Q14_SHIPPED.1) {
        let Some(part) = database.parts.get(&line.l_partkey) else { continue };
        let row = sums.entry(()).or_insert(Promotion { promo: 0, total: 0 });
        row.total += discounted(line);
        if part.p_type.starts_with("PROMO") {
            row.promo += discounted(line);
        }
    }
    sums
}

fn q15(database: &Database) -> BTreeMap<u32, TopSupplier> {
    let mut revenue: BTreeMap<u32, i64> = BTreeMap::new();
    for line in database.all_lines().filter(|line| line.l_shipdate >= Q15_SHIPPED.0 && line.l_shipdate < Q15_SHIPPED.1) {
        *revenue.entry(line.l_suppkey).or_default() += discounted(line);
    }
    let most = revenue.values().max().copied();
    let top = revenue.into_iter().filter(|(_, revenue)| Some(*revenue) == most);
    top.filter_map(|(key, total_revenue)| {
        let supplier = database.suppliers.get(&key)?;
        let (s_name, s_address, s_phone) = (supplier.s_name.clone(), supplier.s_address.clone(), supplier.s_phone.clone());
        Some((key, TopSupplier { total_revenue, s_name, s_address, s_phone }))
    })
    .collect()
}

fn q18(database: &Database) -> BTreeMap<u64, LargeOrder> {
    let large = database.orders.iter().filter_map(|(key, order)| {
        let customer = database.customers.get(&order.o_custkey)?;
        let sum_qty = database.lines.get(key)?.iter().map(|line| line.l_quantity).sum();
        let (o_totalprice, o_orderdate, c_name) = (order.o_totalprice, order.o_orderdate, customer.c_name.clone());
        (sum_qty > Q18_QUANTITY).then_some((*key, LargeOrder { o_totalprice, o_orderdate, c_custkey: customer.c_custkey, c_name, sum_qty }))
    });
    first(ROWS[2], large, |key, row| (-row.o_totalprice, row.o_orderdate, u64::MAX - key))
}

fn q21(database: &Database) -> BTreeMap<String, i64> {
    let mut waiting: BTreeMap<String, i64> = BTreeMap::new();
    for (order, line) in database.ordered_lines() {
        let Some(supplier) = database.suppliers.get(&line.l_suppkey) else { continue };
        let Some(nation) = database.nations.get(&supplier.s_nationkey) else { continue };
        let late = |line: &Lineitem| line.l_receiptdate > line.l_commitdate;
        let others: BTreeSet<u32> =
            database.lines[&order.o_orderkey].iter().map(|other| other.l_suppkey).filter(|key| *key != line.l_suppkey).collect();
        let others_late = database.lines[&order.o_orderkey].iter().any(|other| others.contains(&other.l_suppkey) && late(other));
        if nation.n_name == Q21_NATION && order.o_orderstatus == "F" && late(line) && !others.is_empty() && !others_late {
            *waiting.entry(supplier.s_name.clone()).or_default() += 1;
        }
    }
    first(ROWS[3], waiting, |name, lines| (-lines, name.clone()))
}
