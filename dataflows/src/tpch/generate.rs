//! Makes the changes of TPC-H tables: the rows of `dbgen`, in the order of a shop's life, with orders that go again.
//!
//! A [`Population`] of scale factor `s` ends: first all regions, nations, suppliers, parts and customers, then the orders,
//! each with its line items. Some orders come twice, the second time as a *guest* under a key that `dbgen` leaves free for
//! inserts; guests are deleted some orders later. When the population ends, exactly the rows of `dbgen` are left, and the
//! published answers hold. [`Refreshes`] go on from there without end, as the refresh functions RF1 and RF2 do: a new order
//! comes, the oldest goes.

use std::collections::VecDeque;
use std::iter::Peekable;

use lambdaflow::testing::Random;
use tpchgen::generators::{
    CustomerGenerator, LineItem, LineItemGenerator, LineItemGeneratorIterator, NationGenerator, Order, OrderGenerator,
    OrderGeneratorIterator, PartGenerator, PartSuppGenerator, RegionGenerator, SupplierGenerator,
};

use super::rows::{Change, Customer, Lineitem, Nation, Orders, Part, Partsupp, Region, Row, Supplier};

/// Scale factor of samples where the environment does not say: about 87,000 rows, 10 MB.
pub const SCALE: f64 = 0.01;
/// One in so many orders has a guest.
const GUEST_ONE_IN: u64 = 8;
/// Orders after which a guest goes, at most.
const GUEST_ORDERS_MAX: u64 = 500;
/// Of each 32 order keys `dbgen` takes the first 8; three more times 8 are free for inserts (specification, section 4.2.3).
const KEY_STEP: u64 = 8;
const KEYS_PER_STEP: u64 = 4;

/// The scale factor that `LAMBDAFLOW_TPCH_SCALE` asks for, else [`SCALE`].
///
/// # Panics
/// If it is set to something that is not a positive number.
pub fn scale_from_environment() -> f64 {
    std::env::var("LAMBDAFLOW_TPCH_SCALE").map_or(SCALE, |text| match text.parse() {
        Ok(scale) if scale > 0.0 && scale < f64::INFINITY => scale,
        _ => panic!("LAMBDAFLOW_TPCH_SCALE is a positive number, not `{text}`"),
    })
}

/// An endless stream of changes: a population, then refreshes.
pub fn changes(seed: u64, scale: f64) -> impl Iterator<Item = Change> {
    Population::new(seed, scale).chain(Refreshes::new(scale))
}

/// The changes that lead to the tables of `dbgen`.
pub struct Population {
    random: Random,
    /// Tables that orders refer to.
    first: Box<dyn Iterator<Item = Row>>,
    orders: OrdersWithLines,
    /// Orders so far.
    ordered: u64,
    /// Guests that are there, each with the number of orders after which it goes.
    guests: Vec<(u64, Vec<Row>)>,
    /// What is to be said next.
    due: VecDeque<Change>,
}

impl Population {
    /// The tables at a scale factor; the seed chooses the guests.
    pub fn new(seed: u64, scale: f64) -> Self {
        let regions = RegionGenerator::new(scale, 1, 1).iter().map(region);
        let nations = NationGenerator::new(scale, 1, 1).iter().map(nation);
        let suppliers = SupplierGenerator::new(scale, 1, 1).iter().map(supplier);
        let parts = PartGenerator::new(scale, 1, 1).iter().map(part);
        let partsupps = PartSuppGenerator::new(scale, 1, 1).iter().map(partsupp);
        let customers = CustomerGenerator::new(scale, 1, 1).iter().map(customer);
        Self {
            random: Random::new(seed),
            first: Box::new(regions.chain(nations).chain(suppliers).chain(parts).chain(partsupps).chain(customers)),
            orders: OrdersWithLines::new(scale),
            ordered: 0,
            guests: Vec::new(),
            due: VecDeque::new(),
        }
    }

    /// The next order, and the guests that come and go with it. Without orders, all guests go.
    fn order(&mut self) {
        let order = self.orders.next();
        let last = order.is_none();
        if let Some(rows) = order {
            self.ordered += 1;
            let guest = (self.random.below(GUEST_ONE_IN) == 0).then(|| under_key(&rows, KEY_STEP));
            self.due.extend(rows.into_iter().map(Change::insert));
            if let Some(rows) = guest {
                self.due.extend(rows.iter().cloned().map(Change::insert));
                self.guests.push((self.ordered + self.random.below(GUEST_ORDERS_MAX), rows));
            }
        }
        let leave = self.guests.extract_if(.., |(until, _)| last || *until <= self.ordered);
        self.due.extend(leave.flat_map(|(_, rows)| rows.into_iter().rev().map(Change::delete)));
    }
}

impl Iterator for Population {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        if let Some(row) = self.first.next() {
            return Some(Change::insert(row));
        }
        if self.due.is_empty() {
            self.order();
        }
        self.due.pop_front()
    }
}

/// After a population: new orders come, the oldest go, without end.
pub struct Refreshes {
    scale: f64,
    orders: OrdersWithLines,
    /// How often all orders were replaced.
    pass: u64,
    due: VecDeque<Change>,
}

impl Refreshes {
    /// Refreshes of a population at a scale factor.
    pub fn new(scale: f64) -> Self {
        Self { scale, orders: OrdersWithLines::new(scale), pass: 0, due: VecDeque::new() }
    }
}

impl Iterator for Refreshes {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        if self.due.is_empty() {
            let rows = match self.orders.next() {
                Some(rows) => rows,
                None => {
                    self.orders = OrdersWithLines::new(self.scale);
                    self.pass += 1;
                    self.orders.next()?
                }
            };
            let step = |pass: u64| KEY_STEP * (pass % KEYS_PER_STEP);
            self.due.extend(under_key(&rows, step(self.pass + 1)).into_iter().map(Change::insert));
            self.due.extend(under_key(&rows, step(self.pass)).into_iter().rev().map(Change::delete));
        }
        self.due.pop_front()
    }
}

/// The rows of an order under another key.
fn under_key(rows: &[Row], step: u64) -> Vec<Row> {
    let mut rows = rows.to_vec();
    for row in &mut rows {
        match row {
            Row::Orders(order) => order.o_orderkey += step,
            Row::Lineitem(line) => line.l_orderkey += step,
            _ => {}
        }
    }
    rows
}

/// Each order with its lines.
struct OrdersWithLines {
    orders: OrderGeneratorIterator<'static>,
    lines: Peekable<LineItemGeneratorIterator<'static>>,
}

impl OrdersWithLines {
    fn new(scale: f64) -> Self {
        Self { orders: OrderGenerator::new(scale, 1, 1).iter(), lines: LineItemGenerator::new(scale, 1, 1).iter().peekable() }
    }
}

impl Iterator for OrdersWithLines {
    type Item = Vec<Row>;

    fn next(&mut self) -> Option<Vec<Row>> {
        let first = self.orders.next()?;
        let mut rows = vec![order(&first)];
        while let Some(line) = self.lines.next_if(|line| line.l_orderkey == first.o_orderkey) {
            rows.push(lineitem(&line));
        }
        Some(rows)
    }
}

/// Keys and sizes of `dbgen` are positive and fit up to scale factor 20,000.
fn key(key: i64) -> u32 {
    u32::try_from(key).expect("keys fit in 32 bits up to scale factor 20,000")
}

fn region(row: tpchgen::generators::Region<'_>) -> Row {
    Region { r_regionkey: key(row.r_regionkey), r_name: row.r_name.to_owned(), r_comment: row.r_comment.to_owned() }.into()
}

fn nation(row: tpchgen::generators::Nation<'_>) -> Row {
    Nation {
        n_nationkey: key(row.n_nationkey),
        n_name: row.n_name.to_owned(),
        n_regionkey: key(row.n_regionkey),
        n_comment: row.n_comment.to_owned(),
    }
    .into()
}

fn part(row: tpchgen::generators::Part<'_>) -> Row {
    Part {
        p_partkey: key(row.p_partkey),
        p_name: row.p_name.to_string(),
        p_mfgr: row.p_mfgr.to_string(),
        p_brand: row.p_brand.to_string(),
        p_type: row.p_type.to_owned(),
        p_size: key(row.p_size.into()),
        p_container: row.p_container.to_owned(),
        p_retailprice: row.p_retailprice.into_inner(),
        p_comment: row.p_comment.to_owned(),
    }
    .into()
}

fn supplier(row: tpchgen::generators::Supplier) -> Row {
    Supplier {
        s_suppkey: key(row.s_suppkey),
        s_name: row.s_name.to_string(),
        s_address: row.s_address.to_string(),
        s_nationkey: key(row.s_nationkey),
        s_phone: row.s_phone.to_string(),
        s_acctbal: row.s_acctbal.into_inner(),
        s_comment: row.s_comment,
    }
    .into()
}

fn partsupp(row: tpchgen::generators::PartSupp<'_>) -> Row {
    Partsupp {
        ps_partkey: key(row.ps_partkey),
        ps_suppkey: key(row.ps_suppkey),
        ps_availqty: key(row.ps_availqty.into()),
        ps_supplycost: row.ps_supplycost.into_inner(),
        ps_comment: row.ps_comment.to_owned(),
    }
    .into()
}

fn customer(row: tpchgen::generators::Customer<'_>) -> Row {
    Customer {
        c_custkey: key(row.c_custkey),
        c_name: row.c_name.to_string(),
        c_address: row.c_address.to_string(),
        c_nationkey: key(row.c_nationkey),
        c_phone: row.c_phone.to_string(),
        c_acctbal: row.c_acctbal.into_inner(),
        c_mktsegment: row.c_mktsegment.to_owned(),
        c_comment: row.c_comment.to_owned(),
    }
    .into()
}

fn order(row: &Order<'_>) -> Row {
    Orders {
        o_orderkey: row.o_orderkey as u64,
        o_custkey: key(row.o_custkey),
        o_orderstatus: row.o_orderstatus.as_str().to_owned(),
        o_totalprice: row.o_totalprice.into_inner(),
        o_orderdate: row.o_orderdate.to_unix_epoch(),
        o_orderpriority: row.o_orderpriority.to_owned(),
        o_clerk: row.o_clerk.to_string(),
        o_shippriority: key(row.o_shippriority.into()),
        o_comment: row.o_comment.to_owned(),
    }
    .into()
}

fn lineitem(row: &LineItem<'_>) -> Row {
    Lineitem {
        l_orderkey: row.l_orderkey as u64,
        l_partkey: key(row.l_partkey),
        l_suppkey: key(row.l_suppkey),
        l_linenumber: key(row.l_linenumber.into()),
        l_quantity: row.l_quantity,
        l_extendedprice: row.l_extendedprice.into_inner(),
        l_discount: row.l_discount.into_inner(),
        l_tax: row.l_tax.into_inner(),
        l_returnflag: row.l_returnflag.to_owned(),
        l_linestatus: row.l_linestatus.to_owned(),
        l_shipdate: row.l_shipdate.to_unix_epoch(),
        l_commitdate: row.l_commitdate.to_unix_epoch(),
        l_receiptdate: row.l_receiptdate.to_unix_epoch(),
        l_shipinstruct: row.l_shipinstruct.to_owned(),
        l_shipmode: row.l_shipmode.to_owned(),
        l_comment: row.l_comment.to_owned(),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const SMALL: f64 = 0.001;

    /// Rows that are there, each of which must be there once.
    fn survivors(changes: impl Iterator<Item = Change>) -> BTreeMap<Row, i64> {
        let mut rows = BTreeMap::new();
        for change in changes {
            *rows.entry(change.row).or_default() += if change.delete { -1 } else { 1 };
        }
        rows.retain(|_, n| *n != 0);
        assert!(rows.values().all(|n| *n == 1), "a row is there twice, or was deleted before it came");
        rows
    }

    #[test]
    fn a_population_with_guests_leaves_the_rows_of_dbgen() {
        let changes: Vec<Change> = Population::new(7, SMALL).collect();
        assert!(changes.iter().filter(|change| change.delete).count() > 100, "there are guests");
        let mut dbgen: Vec<Row> = OrdersWithLines::new(SMALL).flatten().collect();
        dbgen.sort();
        let left: Vec<Row> =
            survivors(changes.into_iter()).into_keys().filter(|row| matches!(row, Row::Orders(_) | Row::Lineitem(_))).collect();
        assert!(left == dbgen, "{} rows, of {} rows of dbgen", left.len(), dbgen.len());
        assert_eq!(left.iter().filter(|row| matches!(row, Row::Orders(_))).count(), 1_500);
    }

    #[test]
    fn refreshes_replace_every_order_and_keep_their_number() {
        let before = survivors(Population::new(7, SMALL));
        // A pass is two changes for each row, less the tables that stay: keys are used again in the fifth.
        let after = survivors(Population::new(7, SMALL).chain(Refreshes::new(SMALL).take(5 * 2 * before.len())));
        assert!(after.len().abs_diff(before.len()) <= 8, "{} rows, then {}", before.len(), after.len());
        let keys: BTreeSet<u64> =
            after.keys().filter_map(|row| if let Row::Orders(order) = row { Some(order.o_orderkey) } else { None }).collect();
        assert!(keys.len().abs_diff(1_500) <= 1, "{} orders", keys.len());
    }
}
