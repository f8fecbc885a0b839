//! The queries as SQL, in the words of the specification, over the rows that deletes leave.

use std::io;

use lambdaflow::log::Tick;
use lambdaflow::testing::{Cell, Oracle, Tables};

use super::date;
use super::generate::changes;
use super::rows::{Change, Row};
use super::views::parameters::*;

/// Changes of a population for each order of scale factor 1, guests included: an order with its lines is 5 rows, a guest in
/// eight comes and goes, and other tables have 0.77 rows an order.
const CHANGES_PER_SCALE: f64 = 1_500_000.0 * (5.0 * 1.25 + 0.77);
/// Share of the changes that a population takes; the rest are refreshes.
const POPULATION: f64 = 0.95;
/// Changes at a tick: about 70 orders.
const CHANGES_PER_TICK: u64 = 500;

/// The tables that are deleted from, too.
const CHANGING: [&str; 2] = ["orders", "lineitem"];

/// The oracle of the program. The scale factor follows from the number of events.
pub fn oracle() -> Oracle<Change> {
    let events = |seed: u64, count: u64| {
        let changes = changes(seed, POPULATION * count as f64 / CHANGES_PER_SCALE);
        (0..count).zip(changes).map(|(i, change)| (Tick(1 + i / CHANGES_PER_TICK), change))
    };
    super::QUERIES.iter().fold(Oracle::new(events, export), |oracle, query| oracle.query(query, &sql(query)))
}

/// Writes inserted rows and deleted ones; which are left is the database's business.
fn export(mut events: Box<dyn Iterator<Item = (Tick, Change)>>, tables: &mut Tables) -> io::Result<()> {
    for (name, columns) in TABLES {
        match CHANGING.contains(name) {
            false => tables.table(name, columns)?,
            true => {
                tables.table(&format!("{name}_inserted"), columns)?;
                tables.table(&format!("{name}_deleted"), columns)?;
            }
        }
    }
    events.try_for_each(|(_, Change { delete, row })| {
        let (name, cells) = cells(&row);
        let cells: Vec<Cell> = cells.iter().map(|cell| Cell::Text(cell)).collect();
        match (CHANGING.contains(&name), delete) {
            (false, false) => tables.row(name, &cells),
            (false, true) => Err(io::Error::other(format!("the generator deletes from `{name}`"))),
            (true, false) => tables.row(&format!("{name}_inserted"), &cells),
            (true, true) => tables.row(&format!("{name}_deleted"), &cells),
        }
    })
}

type Columns = &'static [(&'static str, &'static str)];

/// The tables with the specification's types (section 1.4.1).
const TABLES: &[(&str, Columns)] = &[
    ("region", &[("r_regionkey", "INTEGER"), ("r_name", "VARCHAR"), ("r_comment", "VARCHAR")]),
    ("nation", &[("n_nationkey", "INTEGER"), ("n_name", "VARCHAR"), ("n_regionkey", "INTEGER"), ("n_comment", "VARCHAR")]),
    (
        "part",
        &[
            ("p_partkey", "INTEGER"),
            ("p_name", "VARCHAR"),
            ("p_mfgr", "VARCHAR"),
            ("p_brand", "VARCHAR"),
            ("p_type", "VARCHAR"),
            ("p_size", "INTEGER"),
            ("p_container", "VARCHAR"),
            ("p_retailprice", "DECIMAL(15,2)"),
            ("p_comment", "VARCHAR"),
        ],
    ),
    (
        "supplier",
        &[
            ("s_suppkey", "INTEGER"),
            ("s_name", "VARCHAR"),
            ("s_address", "VARCHAR"),
            ("s_nationkey", "INTEGER"),
            ("s_phone", "VARCHAR"),
            ("s_acctbal", "DECIMAL(15,2)"),
            ("s_comment", "VARCHAR"),
        ],
    ),
    (
        "partsupp",
        &[
            ("ps_partkey", "INTEGER"),
            ("ps_suppkey", "INTEGER"),
            ("ps_availqty", "INTEGER"),
            ("ps_supplycost", "DECIMAL(15,2)"),
            ("ps_comment", "VARCHAR"),
        ],
    ),
    (
        "customer",
        &[
            ("c_custkey", "INTEGER"),
            ("c_name", "VARCHAR"),
            ("c_address", "VARCHAR"),
            ("c_nationkey", "INTEGER"),
            ("c_phone", "VARCHAR"),
            ("c_acctbal", "DECIMAL(15,2)"),
            ("c_mktsegment", "VARCHAR"),
            ("c_comment", "VARCHAR"),
        ],
    ),
    (
        "orders",
        &[
            ("o_orderkey", "BIGINT"),
            ("o_custkey", "INTEGER"),
            ("o_orderstatus", "VARCHAR"),
            ("o_totalprice", "DECIMAL(15,2)"),
            ("o_orderdate", "DATE"),
            ("o_orderpriority", "VARCHAR"),
            ("o_clerk", "VARCHAR"),
            ("o_shippriority", "INTEGER"),
            ("o_comment", "VARCHAR"),
        ],
    ),
    (
        "lineitem",
        &[
            ("l_orderkey", "BIGINT"),
            ("l_partkey", "INTEGER"),
            ("l_suppkey", "INTEGER"),
            ("l_linenumber", "INTEGER"),
            ("l_quantity", "DECIMAL(15,2)"),
            ("l_extendedprice", "DECIMAL(15,2)"),
            ("l_discount", "DECIMAL(15,2)"),
            ("l_tax", "DECIMAL(15,2)"),
            ("l_returnflag", "VARCHAR"),
            ("l_linestatus", "VARCHAR"),
            ("l_shipdate", "DATE"),
            ("l_commitdate", "DATE"),
            ("l_receiptdate", "DATE"),
            ("l_shipinstruct", "VARCHAR"),
            ("l_shipmode", "VARCHAR"),
            ("l_comment", "VARCHAR"),
        ],
    ),
];

/// A row as its table's name and the text of its columns.
fn cells(row: &Row) -> (&'static str, Vec<String>) {
    let decimal = |hundredths: i64| {
        let sign = if hundredths < 0 { "-" } else { "" };
        format!("{sign}{}.{:02}", hundredths.unsigned_abs() / 100, hundredths.unsigned_abs() % 100)
    };
    macro_rules! cells {
        ($($cell:expr),+ $(,)?) => { vec![$($cell.to_string()),+] };
    }
    match row {
        Row::Region(r) => ("region", cells![r.r_regionkey, r.r_name, r.r_comment]),
        Row::Nation(n) => ("nation", cells![n.n_nationkey, n.n_name, n.n_regionkey, n.n_comment]),
        Row::Part(p) => {
            let price = decimal(p.p_retailprice);
            ("part", cells![p.p_partkey, p.p_name, p.p_mfgr, p.p_brand, p.p_type, p.p_size, p.p_container, price, p.p_comment])
        }
        Row::Supplier(s) => {
            let balance = decimal(s.s_acctbal);
            ("supplier", cells![s.s_suppkey, s.s_name, s.s_address, s.s_nationkey, s.s_phone, balance, s.s_comment])
        }
        Row::Partsupp(p) => ("partsupp", cells![p.ps_partkey, p.ps_suppkey, p.ps_availqty, decimal(p.ps_supplycost), p.ps_comment]),
        Row::Customer(c) => {
            let balance = decimal(c.c_acctbal);
            let cells = cells![c.c_custkey, c.c_name, c.c_address, c.c_nationkey, c.c_phone, balance, c.c_mktsegment, c.c_comment];
            ("customer", cells)
        }
        Row::Orders(o) => {
            let (price, day) = (decimal(o.o_totalprice), date::to_text(o.o_orderdate));
            let first = cells![o.o_orderkey, o.o_custkey, o.o_orderstatus, price, day];
            ("orders", [first, cells![o.o_orderpriority, o.o_clerk, o.o_shippriority, o.o_comment]].concat())
        }
        Row::Lineitem(l) => {
            let keys = cells![l.l_orderkey, l.l_partkey, l.l_suppkey, l.l_linenumber];
            let money = cells![decimal(l.l_quantity * 100), decimal(l.l_extendedprice), decimal(l.l_discount), decimal(l.l_tax)];
            let days = [l.l_shipdate, l.l_commitdate, l.l_receiptdate].map(date::to_text).to_vec();
            let flags = cells![l.l_returnflag, l.l_linestatus];
            ("lineitem", [keys, money, flags, days, cells![l.l_shipinstruct, l.l_shipmode, l.l_comment]].concat())
        }
    }
}

/// The columns of a view's rows, from the answer to the specification's query. `e2`, `e4` and `e6` are replaced by the
/// digits of decimals with so many behind the point.
fn columns(query: &str) -> &'static str {
    match query {
        "q1" => {
            "l_returnflag, l_linestatus, sum_qty::BIGINT, e2(sum_base_price), e4(sum_disc_price), e6(sum_charge), e2(sum_discount), \
             avg_qty, avg_price, avg_disc, count_order FROM answer"
        }
        "q3" => "l_orderkey, e4(revenue), o_orderdate, o_shippriority FROM answer",
        "q4" => "o_orderpriority, order_count FROM answer",
        "q5" => "n_name, e4(revenue) FROM answer",
        "q6" => "NULL AS key, e4(revenue) FROM answer WHERE revenue IS NOT NULL",
        "q10" => "c_custkey, e4(revenue), c_name, e2(c_acctbal), n_name, c_address, c_phone, c_comment FROM answer",
        "q12" => "l_shipmode, high_line_count::BIGINT, low_line_count::BIGINT FROM answer",
        "q13" => "c_count, custdist FROM answer",
        "q14" => "NULL AS key, e4(promo), e4(total), promo_revenue FROM answer WHERE total IS NOT NULL",
        "q15" => "s_suppkey, e4(total_revenue), s_name, s_address, s_phone FROM answer",
        "q18" => "o_orderkey, e2(o_totalprice), o_orderdate, c_custkey, c_name, sum_qty::BIGINT FROM answer",
        "q21" => "s_name, numwait FROM answer",
        other => unreachable!("`{other}` is no view"),
    }
}

/// A view as SQL.
fn sql(query: &str) -> String {
    let text = specified(query);
    // q15 defines a view before it selects.
    let (view, select) = match text.split_once(';') {
        Some((view, rest)) if rest.contains("select") => {
            let (name, definition) = view.split_once(" as\n").expect("`create view NAME (COLUMNS) as`");
            let name = name.trim().trim_start_matches("create view ");
            (format!(", {name} AS ({definition})"), rest.split(';').next().unwrap_or_default())
        }
        _ => (String::new(), text.trim_end().trim_end_matches(';')),
    };
    let left = CHANGING.map(|table| format!("{table} AS (SELECT * FROM {table}_inserted EXCEPT ALL SELECT * FROM {table}_deleted)"));
    let mut columns = columns(query).to_owned();
    for digits in [2, 4, 6] {
        columns = exact_columns(&columns, digits);
    }
    format!("WITH {}{view}, answer AS ({select}) SELECT {columns}", left.join(", "))
}

/// Replaces `e4(column)` by the column's digits, four of them behind the point.
fn exact_columns(columns: &str, digits: u32) -> String {
    let opening = format!("e{digits}(");
    let mut parts = columns.split(&opening);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (column, rest) = part.split_once(')').expect("it is closed");
        format!("{text}replace({column}::DECIMAL(38,{digits})::VARCHAR, '.', '')::BIGINT AS {column}{rest}")
    })
}

/// The specification's text of a query with the validation parameters, and columns that the view has besides.
fn specified(query: &str) -> String {
    let day = |days: i32| date::to_text(days);
    let (substitutions, limit): (Vec<String>, Option<usize>) = match query {
        "q1" => (vec!["90".into()], None),
        "q3" => (vec![Q3_SEGMENT.into(), day(Q3_DAY)], Some(ROWS[0])),
        "q4" => (vec![day(Q4_ORDERED.0)], None),
        "q5" => (vec![Q5_REGION.into(), day(Q5_ORDERED.0)], None),
        "q6" => (vec![day(Q6_SHIPPED.0), "0.06".into(), Q6_QUANTITY.to_string()], None),
        "q10" => (vec![day(Q10_ORDERED.0)], Some(ROWS[1])),
        "q12" => (vec![Q12_MODES[0].into(), Q12_MODES[1].into(), day(Q12_RECEIVED.0)], None),
        "q13" => (Q13_WORDS.map(str::to_owned).to_vec(), None),
        "q14" => (vec![day(Q14_SHIPPED.0)], None),
        "q15" => (vec![day(Q15_SHIPPED.0)], None),
        "q18" => (vec![Q18_QUANTITY.to_string()], Some(ROWS[2])),
        "q21" => (vec![Q21_NATION.into()], Some(ROWS[3])),
        other => unreachable!("`{other}` is no view"),
    };
    let number = query[1..].parse().expect("a number");
    let mut text = tpchgen::q_and_a::queries::query(number).expect("a query of TPC-H").replace(":s", "0");
    for (at, value) in substitutions.iter().enumerate() {
        text = text.replace(&format!(":{}", at + 1), value);
    }
    // DuckDB knows no precision of intervals.
    text = text.replace(" day (3)", " day");
    match query {
        "q1" => text = text.replace("count(*) as", "sum(l_discount) as sum_discount, count(*) as"),
        "q14" => {
            let (share, from) = text.split_once(" as promo_revenue").expect("a named column");
            let (promo, total) = share.split_once("100.00 *").and_then(|(_, sums)| sums.split_once(") / ")).expect("a share of sums");
            text = format!("{share} as promo_revenue, {promo}) as promo, {total} as total{from}");
        }
        "q18" => text = text.replacen("sum(l_quantity)", "sum(l_quantity) as sum_qty", 1),
        _ => {}
    }
    match limit {
        Some(rows) => format!("{} limit {rows};", text.trim_end().trim_end_matches(';')),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_view_has_sql_without_open_parameters() {
        for query in super::super::QUERIES {
            let sql = sql(query);
            assert!(sql.contains("select") && !sql.contains("':") && !sql.contains(" :") && !sql.contains(';'), "{sql}");
        }
        assert!(sql("q15").contains(", revenue0 (supplier_no, total_revenue) AS ("), "{}", sql("q15"));
        assert!(sql("q10").contains("SELECT c_custkey, replace(revenue::DECIMAL(38,4)::VARCHAR, '.', '')::BIGINT AS revenue, c_name"));
    }

    #[test]
    fn rows_have_the_columns_of_their_tables() {
        for change in changes(1, 0.001).take(3_000) {
            let (name, cells) = cells(&change.row);
            let (_, columns) = TABLES.iter().find(|(table, _)| *table == name).expect("a table");
            assert_eq!(cells.len(), columns.len(), "{name}");
        }
    }
}
