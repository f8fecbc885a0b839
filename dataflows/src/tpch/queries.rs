//! The dataflow: changes of eight tables in, a view for each query out. Batch and speed layer both run this definition.
//!
//! Keys are taken to be keys: no two customers have one `c_custkey`, and so on. What only filters is joined as a row
//! without columns, `(key, ())`.
//!
//! **State.** A join keeps both of its sides, so each side is filtered and stripped to the columns that are used before it
//! is joined, and sums over one table are made before a join wherever that leaves fewer rows. What is said of cost below is
//! for scale factor 1: 6 million line items, 1.5 million orders, 200,000 parts, 150,000 customers, 10,000 suppliers.

use std::iter::once;

use columnar::Ref;
use lambdaflow::operators::Groups;
use lambdaflow::prelude::*;
use lambdaflow::runs::Data;

use super::QUERIES;
use super::rows::{Change, Customer, Lineitem, Nation, Orders, Part, Region, RowReference, Supplier};
use super::views::parameters::*;
use super::views::{LargeOrder, Lines, Pricing, Promotion, Returning, Shipping, TopSupplier};

/// Publishes `q1`, `q3`, `q4`, `q5`, `q6`, `q10`, `q12`, `q13`, `q14`, `q15`, `q18` and `q21`.
pub fn tpch(changes: Events<'_, Change>, views: &mut Views) {
    let tables = Tables(changes);
    QUERIES.iter().for_each(|query| publish(query, &tables, views));
}

/// The dataflow of some of the queries.
///
/// # Panics
/// When it is built, if one is not among [`QUERIES`].
pub fn only(queries: Vec<String>) -> impl for<'s> Fn(Events<'s, Change>, &mut Views) + Send + Sync {
    move |changes, views| {
        let tables = Tables(changes);
        queries.iter().for_each(|query| publish(query, &tables, views));
    }
}

fn publish(query: &str, tables: &Tables<'_>, views: &mut Views) {
    match query {
        "q1" => {
            let sums = ["sum_qty", "sum_base_price", "sum_disc_price", "sum_charge", "sum_discount"];
            let value: Vec<&str> = sums.into_iter().chain(["avg_qty", "avg_price", "avg_disc", "count_order"]).collect();
            views.publish(query, q1(tables)).key(&["l_returnflag", "l_linestatus"]).value(&value);
        }
        "q3" => {
            views.publish(query, q3(tables)).key(&["l_orderkey"]).value(&["revenue", "o_orderdate", "o_shippriority"]);
        }
        "q4" => {
            views.publish(query, q4(tables)).key(&["o_orderpriority"]).value(&["order_count"]);
        }
        "q5" => {
            views.publish(query, q5(tables)).key(&["n_name"]).value(&["revenue"]);
        }
        "q6" => {
            views.publish(query, q6(tables)).key(&[]).value(&["revenue"]);
        }
        "q10" => {
            let value = ["revenue", "c_name", "c_acctbal", "n_name", "c_address", "c_phone", "c_comment"];
            views.publish(query, q10(tables)).key(&["c_custkey"]).value(&value);
        }
        "q12" => {
            views.publish(query, q12(tables)).key(&["l_shipmode"]).value(&["high_line_count", "low_line_count"]);
        }
        "q13" => {
            views.publish(query, q13(tables)).key(&["c_count"]).value(&["custdist"]);
        }
        "q14" => {
            views.publish(query, q14(tables)).key(&[]).value(&["promo", "total", "promo_revenue"]);
        }
        "q15" => {
            views.publish(query, q15(tables)).key(&["s_suppkey"]).value(&["total_revenue", "s_name", "s_address", "s_phone"]);
        }
        "q18" => {
            let value = ["o_totalprice", "o_orderdate", "c_custkey", "c_name", "sum_qty"];
            views.publish(query, q18(tables)).key(&["o_orderkey"]).value(&value);
        }
        "q21" => {
            views.publish(query, q21(tables)).key(&["s_name"]).value(&["numwait"]);
        }
        other => panic!("`{other}` is none of {QUERIES:?}"),
    }
}

/// The tables, as changes.
struct Tables<'s>(Events<'s, Change>);

fn sign(delete: bool) -> Diff {
    if delete { -1 } else { 1 }
}

macro_rules! tables {
    ($($name:ident $table:ident),+) => {
        impl<'s> Tables<'s> {$(
            /// What `logic` makes of the rows of one table. Only what it returns is copied.
            fn $name<D: Data>(&self, mut logic: impl FnMut(Ref<'_, $table>) -> Option<D> + 'static) -> Flow<'s, D> {
                self.0.clone().explode(move |change| match change.row {
                    RowReference::$table(row) => logic(row).map(|row| (row, sign(change.delete))),
                    _ => None,
                })
            }
        )+}
    };
}
tables!(regions Region, nations Nation, parts Part, suppliers Supplier, customers Customer, orders Orders, lines Lineitem);

impl<'s> Tables<'s> {
    /// Sums over line items, by borrowed key: `logic` gets a line, and its sign to multiply with.
    ///
    /// For few keys only. An aggregate of events does not know that a delete takes an insert back: it remembers a key without
    /// lines for ever, with a count of zero. There is no row for it.
    fn line_sums<K: Data, M: Abelian + Data>(
        &self,
        mut logic: impl FnMut(Ref<'_, Lineitem>, Diff, &mut Groups<K, (Count, M)>) + 'static,
    ) -> Flow<'s, (K, (Count, M))> {
        let sums = self.0.clone().aggregate::<K, (Count, M)>(move |change, groups| {
            if let RowReference::Lineitem(line) = change.row {
                logic(line, sign(change.delete), groups);
            }
        });
        sums.rows().filter(|(_, (lines, _))| lines.0 != 0)
    }
}

/// Discounted price of a line, in 1/10,000 dollars; modulo 2^64, as sums are.
fn revenue(line: Ref<'_, Lineitem>) -> i64 {
    line.l_extendedprice.wrapping_mul(100i64.wrapping_sub(*line.l_discount))
}

fn within(day: i32, (from, to): (i32, i32)) -> bool {
    (from..to).contains(&day)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Text whose order is the opposite of the order of `text`, for a `top_k` that prefers what comes first.
fn descending(text: &str) -> String {
    // Each byte becomes the character of its complement; a greater one ends the text, so that a beginning comes after.
    text.bytes().map(|byte| char::from(!byte)).chain(once('\u{100}')).collect()
}

lambdaflow::monoid_struct! {
    /// Sums of `q1`, in the units of its row.
    struct PricingSums { qty: Sum, base_price: Sum, disc_price: Sum, charge: Sum, discount: Sum }
}

/// Pricing summary: lines shipped up to a day, by flag and status. One look-up in a table of four groups for each line; no
/// other state.
fn q1<'s>(tables: &Tables<'s>) -> Flow<'s, ((String, String), Pricing)> {
    let sums = tables.line_sums::<(String, String), PricingSums>(|line, sign, groups| {
        if *line.l_shipdate <= Q1_SHIPPED_TO {
            let sums = PricingSums {
                qty: Sum(*line.l_quantity),
                base_price: Sum(*line.l_extendedprice),
                disc_price: Sum(revenue(line)),
                charge: Sum(revenue(line).wrapping_mul(line.l_tax.wrapping_add(100))),
                discount: Sum(*line.l_discount),
            };
            groups.add((line.l_returnflag, line.l_linestatus), (Count::one(), sums).times(sign));
        }
    });
    sums.map(|(key, (lines, sums))| {
        let pricing = Pricing {
            sum_qty: sums.qty.0,
            sum_base_price: sums.base_price.0,
            sum_disc_price: sums.disc_price.0,
            sum_charge: sums.charge.0,
            sum_discount: sums.discount.0,
            count_order: lines.0 as i64,
        };
        (key, pricing)
    })
}

/// Shipping priority: the ten open orders of a segment with the most revenue. Half of the lines are kept for the join (3.2
/// million), 150,000 orders meet them, and 11,000 sums are ranked.
fn q3<'s>(tables: &Tables<'s>) -> Flow<'s, (u64, Shipping)> {
    let customers = tables.customers(|c| (c.c_mktsegment == Q3_SEGMENT.as_bytes()).then_some((*c.c_custkey, ())));
    let orders = tables.orders(|o| (*o.o_orderdate < Q3_DAY).then_some((*o.o_custkey, (*o.o_orderkey, *o.o_orderdate, *o.o_shippriority))));
    let orders = orders.join_map(customers, |_, (order, day, priority), ()| (*order, (*day, *priority)));
    let lines = tables.lines(|l| (*l.l_shipdate > Q3_DAY).then_some((*l.l_orderkey, revenue(l))));
    let sold = lines.join_map(orders, |order, revenue, (day, priority)| ((*order, *day, *priority), *revenue));
    let sums = sold.aggregate(|revenue| Sum(*revenue)).rows();
    let rows = sums.map(|((order, o_orderdate, o_shippriority), Sum(revenue))| (order, Shipping { revenue, o_orderdate, o_shippriority }));
    rows.top_k(ROWS[0], |(_, row)| (row.revenue, -row.o_orderdate))
}

/// Order priority checking: orders of a quarter with a line that came late, by priority. The orders with a late line are
/// kept (1.4 million keys), 57,000 orders meet them.
fn q4<'s>(tables: &Tables<'s>) -> Flow<'s, (String, Diff)> {
    let orders = tables.orders(|o| within(*o.o_orderdate, Q4_ORDERED).then(|| (*o.o_orderkey, text(o.o_orderpriority))));
    let late = tables.lines(|l| (l.l_commitdate < l.l_receiptdate).then_some((*l.l_orderkey, ())));
    let orders = orders.join_map(late, |order, priority, ()| (*order, priority.clone())).distinct();
    orders.map(|(_, priority)| priority).count()
}

/// Local supplier volume: revenue of a region's suppliers with customers of their own nation, by nation. The most
/// expensive of all in state: every line is kept with its order, supplier and revenue.
fn q5<'s>(tables: &Tables<'s>) -> Flow<'s, (String, i64)> {
    let region = tables.regions(|r| (r.r_name == Q5_REGION.as_bytes()).then_some((*r.r_regionkey, ())));
    let nations = tables.nations(|n| Some((*n.n_regionkey, (*n.n_nationkey, text(n.n_name)))));
    let nations = nations.join_map(region, |_, nation, ()| nation.clone());

    let customers = tables.customers(|c| Some((*c.c_nationkey, *c.c_custkey)));
    let customers = customers.join_map(nations.clone(), |nation, customer, _| (*customer, *nation));
    let orders = tables.orders(|o| within(*o.o_orderdate, Q5_ORDERED).then_some((*o.o_custkey, *o.o_orderkey)));
    let orders = orders.join_map(customers, |_, order, nation| (*order, *nation));
    let lines = tables.lines(|l| Some((*l.l_orderkey, (*l.l_suppkey, revenue(l)))));
    let sold = lines.join_map(orders, |_, (supplier, revenue), nation| ((*supplier, *nation), *revenue));

    let local = tables.suppliers(|s| Some(((*s.s_suppkey, *s.s_nationkey), ())));
    let by_nation = sold.join_map(local, |(_, nation), revenue, ()| (*nation, *revenue)).aggregate(|revenue| Sum(*revenue)).rows();
    by_nation.join_map(nations, |_, Sum(revenue), name| (name.clone(), *revenue))
}

/// Forecasting revenue change: one sum over the lines of a year with a small discount and quantity, in 1/10,000 dollars.
/// There is no row where there is no such line.
fn q6<'s>(tables: &Tables<'s>) -> Flow<'s, ((), i64)> {
    let sums = tables.line_sums::<bool, Sum>(|line, sign, groups| {
        let (least, most) = Q6_DISCOUNT;
        if within(*line.l_shipdate, Q6_SHIPPED) && (least..=most).contains(line.l_discount) && *line.l_quantity < Q6_QUANTITY {
            groups.add(true, (Count::one(), Sum(line.l_extendedprice.wrapping_mul(*line.l_discount))).times(sign));
        }
    });
    sums.map(|(_, (_, Sum(revenue)))| ((), revenue))
}

/// Returned items: the twenty customers with the most revenue returned of a quarter's orders. Returned lines are kept (1.5
/// million); who the customers are is looked up for twenty.
fn q10<'s>(tables: &Tables<'s>) -> Flow<'s, (u32, Returning)> {
    let orders = tables.orders(|o| within(*o.o_orderdate, Q10_ORDERED).then_some((*o.o_orderkey, *o.o_custkey)));
    let lines = tables.lines(|l| (l.l_returnflag == b"R").then_some((*l.l_orderkey, revenue(l))));
    let returned = lines.join_map(orders, |_, revenue, customer| (*customer, *revenue));
    let sums = returned.aggregate(|revenue| Sum(*revenue)).rows().map(|(customer, Sum(revenue))| (customer, revenue));

    let customers = tables.customers(|c| {
        let name = (text(c.c_name), *c.c_acctbal);
        Some((*c.c_custkey, (*c.c_nationkey, name, (text(c.c_address), text(c.c_phone), text(c.c_comment)))))
    });
    let nations = tables.nations(|n| Some((*n.n_nationkey, text(n.n_name))));
    // Customers that are not known are none of the twenty, as in SQL; the joins after the ranking only add columns.
    let known = tables.customers(|c| Some((*c.c_nationkey, *c.c_custkey))).join_map(nations.clone(), |_, customer, _| (*customer, ()));
    let top = sums.join_map(known, |customer, revenue, ()| (*customer, *revenue)).top_k(ROWS[1], |(_, revenue)| *revenue);
    let top =
        top.join_map(customers, |customer, revenue, (nation, name, rest)| (*nation, (*customer, *revenue, name.clone(), rest.clone())));
    top.join_map(nations, |_, (customer, revenue, (c_name, c_acctbal), (c_address, c_phone, c_comment)), n_name| {
        let row = Returning {
            revenue: *revenue,
            c_name: c_name.clone(),
            c_acctbal: *c_acctbal,
            n_name: n_name.clone(),
            c_address: c_address.clone(),
            c_phone: c_phone.clone(),
            c_comment: c_comment.clone(),
        };
        (*customer, row)
    })
}

/// Shipping modes and order priority: late lines of a year by mode, urgent or not. Every order is kept with one bit, since
/// any may have such a line; the lines are few (31,000).
fn q12<'s>(tables: &Tables<'s>) -> Flow<'s, (String, Lines)> {
    let lines = tables.lines(|l| {
        let late = l.l_commitdate < l.l_receiptdate && l.l_shipdate < l.l_commitdate && within(*l.l_receiptdate, Q12_RECEIVED);
        (late && Q12_MODES.iter().any(|mode| l.l_shipmode == mode.as_bytes())).then(|| (*l.l_orderkey, text(l.l_shipmode)))
    });
    let orders = tables.orders(|o| Some((*o.o_orderkey, o.o_orderpriority == b"1-URGENT" || o.o_orderpriority == b"2-HIGH")));
    let shipped = lines.join_map(orders, |_, mode, high| (mode.clone(), *high));
    let counts = shipped.aggregate(|high| (Count(isize::from(*high)), Count(isize::from(!high)))).rows();
    counts.map(|(mode, (high, low))| (mode, Lines { high_line_count: high.0 as i64, low_line_count: low.0 as i64 }))
}

/// Customer distribution: how many customers have how many orders, none included. The outer join is a sum: customers and
/// orders are counted by customer, and where there is a customer, there is a row. One sum for each customer is kept.
fn q13<'s>(tables: &Tables<'s>) -> Flow<'s, (i64, Diff)> {
    let customers = tables.customers(|c| Some((*c.c_custkey, (1, 0))));
    let orders = tables.orders(|o| (!has_words(o.o_comment)).then_some((*o.o_custkey, (0, 1))));
    let counts = customers.concat(orders).aggregate(|(customers, orders)| (Count(*customers), Count(*orders))).rows();
    let customers = counts.explode(|(_, (customers, orders))| Some((orders.0 as i64, customers.0)));
    customers.count()
}

/// Whether a comment has the first word and, somewhere behind it, the second.
fn has_words(comment: &[u8]) -> bool {
    let behind = |text: &[u8], word: &str| text.windows(word.len()).position(|part| part == word.as_bytes()).map(|at| at + word.len());
    behind(comment, Q13_WORDS[0]).is_some_and(|at| behind(&comment[at..], Q13_WORDS[1]).is_some())
}

/// Promotion effect: the share of a month's revenue that is due to parts in promotion. The lines of a month (75,000) and
/// one bit for each part are kept. There is no row where there is no such line.
fn q14<'s>(tables: &Tables<'s>) -> Flow<'s, ((), Promotion)> {
    let lines = tables.lines(|l| within(*l.l_shipdate, Q14_SHIPPED).then_some((*l.l_partkey, revenue(l))));
    let parts = tables.parts(|p| Some((*p.p_partkey, p.p_type.starts_with(b"PROMO"))));
    let sold = lines.join_map(parts, |_, revenue, promo| ((), (*revenue, *promo)));
    let sums = sold.aggregate(|(revenue, promo)| (Sum(*revenue * i64::from(*promo)), Sum(*revenue))).rows();
    sums.map(|((), (promo, total))| ((), Promotion { promo: promo.0, total: total.0 }))
}

/// Top supplier: whoever has the greatest revenue of a quarter, all of them if several have the same. One sum for each
/// supplier is kept and ranked.
fn q15<'s>(tables: &Tables<'s>) -> Flow<'s, (u32, TopSupplier)> {
    let lines = tables.lines(|l| within(*l.l_shipdate, Q15_SHIPPED).then_some((*l.l_suppkey, revenue(l))));
    let by_revenue = lines.aggregate(|revenue| Sum(*revenue)).rows().map(|(supplier, Sum(revenue))| (revenue, supplier));
    let greatest = by_revenue.clone().map(|(revenue, _)| revenue).distinct().top_k(1, |revenue| *revenue);
    let top = by_revenue.join_map(greatest.map(|revenue| (revenue, ())), |revenue, supplier, ()| (*supplier, *revenue));
    let suppliers = tables.suppliers(|s| Some((*s.s_suppkey, (text(s.s_name), text(s.s_address), text(s.s_phone)))));
    top.join_map(suppliers, |supplier, revenue, (name, address, phone)| {
        (*supplier, TopSupplier { total_revenue: *revenue, s_name: name.clone(), s_address: address.clone(), s_phone: phone.clone() })
    })
}

/// Large volume customers: the hundred dearest of the orders of many pieces. Pieces are summed for every order (1.5
/// million sums), and every order is kept for the join; a few dozen are large.
fn q18<'s>(tables: &Tables<'s>) -> Flow<'s, (u64, LargeOrder)> {
    let pieces = tables.lines(|l| Some((*l.l_orderkey, *l.l_quantity))).aggregate(|pieces| Sum(*pieces)).rows();
    let large = pieces.filter(|(_, pieces)| pieces.0 > Q18_QUANTITY);
    let orders = tables.orders(|o| Some((*o.o_orderkey, (*o.o_custkey, *o.o_totalprice, *o.o_orderdate))));
    let large = large.join_map(orders, |order, Sum(pieces), (customer, price, day)| (*customer, (*order, *pieces, *price, *day)));
    let customers = tables.customers(|c| Some((*c.c_custkey, text(c.c_name))));
    let named = large.join_map(customers, |c_custkey, (order, pieces, price, day), name| {
        let row = LargeOrder { o_totalprice: *price, o_orderdate: *day, c_custkey: *c_custkey, c_name: name.clone(), sum_qty: *pieces };
        (*order, row)
    });
    named.top_k(ROWS[2], |(_, row)| (row.o_totalprice, -row.o_orderdate))
}

/// Suppliers who kept orders waiting: a nation's suppliers who alone were late with a finished order of several suppliers.
/// The lines of each order are a small group: supplier and lateness of all lines are kept.
fn q21<'s>(tables: &Tables<'s>) -> Flow<'s, (String, Diff)> {
    let lines = tables.lines(|l| Some((*l.l_orderkey, (*l.l_suppkey, l.l_receiptdate > l.l_commitdate))));
    let alone = lines.reduce_named("AloneLate", |_order, lines, suppliers| {
        let several = lines.iter().any(|((supplier, _), _)| *supplier != lines[0].0.0);
        let mut late = lines.iter().filter(|((_, late), _)| *late);
        if let (true, Some(((supplier, _), n)), None) = (several, late.next(), late.next()) {
            suppliers.push((*supplier, *n));
        }
    });

    let nation = tables.nations(|n| (n.n_name == Q21_NATION.as_bytes()).then_some((*n.n_nationkey, ())));
    let suppliers = tables.suppliers(|s| Some((*s.s_nationkey, (*s.s_suppkey, text(s.s_name)))));
    let suppliers = suppliers.join_map(nation, |_, supplier, ()| supplier.clone());
    let finished = tables.orders(|o| (o.o_orderstatus == b"F").then_some((*o.o_orderkey, ())));

    let waiting = alone.map(|(order, supplier)| (supplier, order)).join_map(suppliers, |_, order, name| (*order, name.clone()));
    let waiting = waiting.join_map(finished, |_, name, ()| name.clone()).count();
    waiting.top_k(ROWS[3], |(name, lines)| (*lines, descending(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descending_text_has_the_opposite_order() {
        let mut names = ["", "a", "ab", "b", "Supplier#000000001", "é", "\0", "\0\0"];
        names.sort_by_key(|name| descending(name));
        assert!(names.is_sorted_by(|a, b| a >= b), "{names:?}");
    }

    #[test]
    fn words_are_found_in_their_order_only() {
        for (comment, found) in [
            ("special requests", true),
            ("the specially packed requests.", true),
            ("requests special", false),
            ("special request", false),
            ("specialrequests", true),
            ("", false),
        ] {
            assert_eq!(has_words(comment.as_bytes()), found, "{comment}");
        }
    }
}
