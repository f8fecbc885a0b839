//! The event of the dataflow: a row of one of the eight tables of TPC-H appears or disappears.
//!
//! Columns are named as in the specification (TPC-H 3.0.1, section 1.4), so that the tables can be read by SQL as they
//! are. Units: money in cents, discounts and taxes in hundredths, quantities in whole pieces, dates in days since
//! 1970-01-01. All of them are integers, because sums of changes must not depend on their order. In JSON a date is text,
//! `1998-12-01`.

use columnar::Columnar;
use lambdaflow::prelude::Event;
use serde::{Deserialize, Serialize};

use super::date;

/// One row is inserted or deleted. A delete names the whole row, as it was inserted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Columnar)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Whether the row disappears. May be left out of JSON for a row that appears.
    #[serde(default, skip_serializing_if = "is_insert")]
    pub delete: bool,
    /// The row.
    pub row: Row,
}

fn is_insert(delete: &bool) -> bool {
    !delete
}

impl Change {
    /// A row that appears.
    pub fn insert(row: Row) -> Self {
        Self { delete: false, row }
    }

    /// A row that disappears.
    pub fn delete(row: Row) -> Self {
        Self { delete: true, row }
    }
}

impl Event for Change {
    const NAME: &'static str = "tpch.Change";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &[
        "delete: bool",
        "row: Region(regionkey: u32, name, comment: String)",
        "| Nation(nationkey: u32, name: String, regionkey: u32, comment: String)",
        "| Part(partkey: u32, name, mfgr, brand, type: String, size: u32, container: String, retailprice: i64, comment: String)",
        "| Supplier(suppkey: u32, name, address: String, nationkey: u32, phone: String, acctbal: i64, comment: String)",
        "| Partsupp(partkey, suppkey, availqty: u32, supplycost: i64, comment: String)",
        "| Customer(custkey: u32, name, address: String, nationkey: u32, phone: String, acctbal: i64, mktsegment, comment: String)",
        "| Orders(orderkey: u64, custkey: u32, orderstatus: String, totalprice: i64, orderdate: i32, orderpriority, clerk: String, \
         shippriority: u32, comment: String)",
        "| Lineitem(orderkey: u64, partkey, suppkey, linenumber: u32, quantity, extendedprice, discount, tax: i64, \
         returnflag, linestatus: String, shipdate, commitdate, receiptdate: i32, shipinstruct, shipmode, comment: String)",
    ];
}

/// A row of one of the tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Columnar)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the variants are the tables")]
pub enum Row {
    Region(Region),
    Nation(Nation),
    Part(Part),
    Supplier(Supplier),
    Partsupp(Partsupp),
    Customer(Customer),
    Orders(Orders),
    Lineitem(Lineitem),
}

macro_rules! tables {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),+ $(,)? })+) => {$(
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Columnar)]
        $(#[$meta])*
        #[serde(deny_unknown_fields)]
        #[expect(missing_docs, reason = "columns are the specification's; units are said above")]
        pub struct $name { $($(#[$field_meta])* pub $field: $type),+ }

        impl From<$name> for Row {
            fn from(row: $name) -> Self {
                Row::$name(row)
            }
        }
    )+};
}

tables! {
    /// A row of `region`.
    Region { r_regionkey: u32, r_name: String, r_comment: String }

    /// A row of `nation`.
    Nation { n_nationkey: u32, n_name: String, n_regionkey: u32, n_comment: String }

    /// A row of `part`.
    Part {
        p_partkey: u32,
        p_name: String,
        p_mfgr: String,
        p_brand: String,
        p_type: String,
        p_size: u32,
        p_container: String,
        p_retailprice: i64,
        p_comment: String,
    }

    /// A row of `supplier`.
    Supplier {
        s_suppkey: u32,
        s_name: String,
        s_address: String,
        s_nationkey: u32,
        s_phone: String,
        s_acctbal: i64,
        s_comment: String,
    }

    /// A row of `partsupp`.
    Partsupp { ps_partkey: u32, ps_suppkey: u32, ps_availqty: u32, ps_supplycost: i64, ps_comment: String }

    /// A row of `customer`.
    Customer {
        c_custkey: u32,
        c_name: String,
        c_address: String,
        c_nationkey: u32,
        c_phone: String,
        c_acctbal: i64,
        c_mktsegment: String,
        c_comment: String,
    }

    /// A row of `orders`.
    Orders {
        o_orderkey: u64,
        o_custkey: u32,
        o_orderstatus: String,
        o_totalprice: i64,
        #[serde(with = "date")]
        o_orderdate: i32,
        o_orderpriority: String,
        o_clerk: String,
        o_shippriority: u32,
        o_comment: String,
    }

    /// A row of `lineitem`.
    Lineitem {
        l_orderkey: u64,
        l_partkey: u32,
        l_suppkey: u32,
        l_linenumber: u32,
        l_quantity: i64,
        l_extendedprice: i64,
        l_discount: i64,
        l_tax: i64,
        l_returnflag: String,
        l_linestatus: String,
        #[serde(with = "date")]
        l_shipdate: i32,
        #[serde(with = "date")]
        l_commitdate: i32,
        #[serde(with = "date")]
        l_receiptdate: i32,
        l_shipinstruct: String,
        l_shipmode: String,
        l_comment: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reads_back_from_json_with_dates_as_text() {
        let line = Lineitem {
            l_orderkey: 1,
            l_partkey: 155_190,
            l_suppkey: 7706,
            l_linenumber: 1,
            l_quantity: 17,
            l_extendedprice: 2_116_823,
            l_discount: 4,
            l_tax: 2,
            l_returnflag: "N".into(),
            l_linestatus: "O".into(),
            l_shipdate: date::days(1996, 3, 13),
            l_commitdate: date::days(1996, 2, 12),
            l_receiptdate: date::days(1996, 3, 22),
            l_shipinstruct: "DELIVER IN PERSON".into(),
            l_shipmode: "TRUCK".into(),
            l_comment: "egular courts above the".into(),
        };
        for change in [Change::insert(line.clone().into()), Change::delete(line.into())] {
            let json = serde_json::to_string(&change).expect("JSON");
            assert_eq!(json.starts_with(r#"{"delete":true,"#), change.delete, "{json}");
            assert!(json.contains(r#""l_shipdate":"1996-03-13","l_commitdate":"1996-02-12""#), "{json}");
            assert_eq!(serde_json::from_str::<Change>(&json).expect("a change"), change);
        }
    }
}
