//! The rows of the views, and the parameters of the queries: what the dataflow and the reference share.
//!
//! Units: *cents* are 1/100 of a dollar, *revenue* is a price times a share and counts 1/10,000, a *charge* counts
//! 1/1,000,000. Nothing is rounded, so answers can be compared digit by digit; only averages and shares, which are derived
//! from the exact fields when a row is shown, are `f64`.
//!
//! Sums are taken modulo 2^64: `sum_charge` of `q1` is exact up to about scale factor 80.

use columnar::Columnar;
use serde::{Deserialize, Serialize};

use super::date::{self, days};

/// The validation values of the substitution parameters (TPC-H 3.0.1, sections 2.4.x.3): published answers are for these.
pub mod parameters {
    use super::days;

    /// `q1`: last day of shipment, 90 days before 1998-12-01.
    pub const Q1_SHIPPED_TO: i32 = days(1998, 12, 1) - 90;
    /// `q3`: segment of the customers.
    pub const Q3_SEGMENT: &str = "BUILDING";
    /// `q3`: ordered before this day, shipped after it.
    pub const Q3_DAY: i32 = days(1995, 3, 15);
    /// `q4`: first day of the quarter, first day after it.
    pub const Q4_ORDERED: (i32, i32) = (days(1993, 7, 1), days(1993, 10, 1));
    /// `q5`: region of customers and suppliers.
    pub const Q5_REGION: &str = "ASIA";
    /// `q5`: first day of the year, first day after it.
    pub const Q5_ORDERED: (i32, i32) = (days(1994, 1, 1), days(1995, 1, 1));
    /// `q6`: first day of the year, first day after it.
    pub const Q6_SHIPPED: (i32, i32) = (days(1994, 1, 1), days(1995, 1, 1));
    /// `q6`: least and greatest discount, in hundredths.
    pub const Q6_DISCOUNT: (i64, i64) = (5, 7);
    /// `q6`: fewer pieces than this.
    pub const Q6_QUANTITY: i64 = 24;
    /// `q10`: first day of the quarter, first day after it.
    pub const Q10_ORDERED: (i32, i32) = (days(1993, 10, 1), days(1994, 1, 1));
    /// `q12`: the two ways of shipment.
    pub const Q12_MODES: [&str; 2] = ["MAIL", "SHIP"];
    /// `q12`: first day of the year, first day after it.
    pub const Q12_RECEIVED: (i32, i32) = (days(1994, 1, 1), days(1995, 1, 1));
    /// `q13`: orders whose comment has these words, in this order, do not count.
    pub const Q13_WORDS: [&str; 2] = ["special", "requests"];
    /// `q14`: first day of the month, first day after it.
    pub const Q14_SHIPPED: (i32, i32) = (days(1995, 9, 1), days(1995, 10, 1));
    /// `q15`: first day of the quarter, first day after it.
    pub const Q15_SHIPPED: (i32, i32) = (days(1996, 1, 1), days(1996, 4, 1));
    /// `q18`: orders of more pieces than this.
    pub const Q18_QUANTITY: i64 = 300;
    /// `q21`: nation of the suppliers.
    pub const Q21_NATION: &str = "SAUDI ARABIA";

    /// Rows of `q3`, `q10`, `q18` and `q21`. Where the specification leaves open who is last, it is the greater key.
    pub const ROWS: [usize; 4] = [10, 20, 100, 100];
}

macro_rules! rows {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),+ $(,)? })+) => {$(
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
        #[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
        $(#[$meta])*
        pub struct $name { $($(#[$field_meta])* pub $field: $type),+ }
    )+};
}

rows! {
    /// Row of `q1`, by `(l_returnflag, l_linestatus)`. Its JSON has the averages, too.
    #[serde(into = "PricingJson", from = "PricingJson")]
    Pricing {
        /// Pieces.
        sum_qty: i64,
        /// Cents.
        sum_base_price: i64,
        /// 1/10,000 dollars.
        sum_disc_price: i64,
        /// 1/1,000,000 dollars.
        sum_charge: i64,
        /// Hundredths.
        sum_discount: i64,
        /// Lines.
        count_order: i64,
    }

    /// Row of `q3`, by `l_orderkey`.
    Shipping {
        /// 1/10,000 dollars.
        revenue: i64,
        /// Days since 1970-01-01.
        #[serde(with = "date")]
        o_orderdate: i32,
        /// As it was ordered.
        o_shippriority: u32,
    }

    /// Row of `q10`, by `c_custkey`.
    Returning {
        /// 1/10,000 dollars.
        revenue: i64,
        /// The customer's name.
        c_name: String,
        /// Cents.
        c_acctbal: i64,
        /// The customer's nation.
        n_name: String,
        /// The customer's address.
        c_address: String,
        /// The customer's phone.
        c_phone: String,
        /// A comment on the customer.
        c_comment: String,
    }

    /// Row of `q12`, by `l_shipmode`.
    Lines {
        /// Lines of urgent orders and of those with high priority.
        high_line_count: i64,
        /// All others.
        low_line_count: i64,
    }

    /// The row of `q14`. Its JSON has `promo_revenue`, too.
    #[serde(into = "PromotionJson", from = "PromotionJson")]
    Promotion {
        /// Revenue of parts in promotion, 1/10,000 dollars.
        promo: i64,
        /// Revenue of all parts, 1/10,000 dollars.
        total: i64,
    }

    /// Row of `q15`, by `s_suppkey`.
    TopSupplier {
        /// 1/10,000 dollars.
        total_revenue: i64,
        /// The supplier's name.
        s_name: String,
        /// The supplier's address.
        s_address: String,
        /// The supplier's phone.
        s_phone: String,
    }

    /// Row of `q18`, by `o_orderkey`.
    LargeOrder {
        /// Cents.
        o_totalprice: i64,
        /// Days since 1970-01-01.
        #[serde(with = "date")]
        o_orderdate: i32,
        /// The customer's key.
        c_custkey: u32,
        /// The customer's name.
        c_name: String,
        /// Pieces.
        sum_qty: i64,
    }
}

impl Pricing {
    /// Average of a sum over the lines; 0 where there are none, since JSON has no NaN.
    fn average(&self, sum: i64, units: f64) -> f64 {
        if self.count_order == 0 { 0.0 } else { sum as f64 / self.count_order as f64 / units }
    }
}

/// [`Pricing`] as it is shown.
#[derive(Serialize, Deserialize)]
struct PricingJson {
    sum_qty: i64,
    sum_base_price: i64,
    sum_disc_price: i64,
    sum_charge: i64,
    sum_discount: i64,
    /// Pieces.
    avg_qty: f64,
    /// Dollars.
    avg_price: f64,
    /// A share.
    avg_disc: f64,
    count_order: i64,
}

impl From<Pricing> for PricingJson {
    fn from(row: Pricing) -> Self {
        let (avg_qty, avg_price, avg_disc) =
            (row.average(row.sum_qty, 1.0), row.average(row.sum_base_price, 100.0), row.average(row.sum_discount, 100.0));
        let Pricing { sum_qty, sum_base_price, sum_disc_price, sum_charge, sum_discount, count_order } = row;
        PricingJson { sum_qty, sum_base_price, sum_disc_price, sum_charge, sum_discount, avg_qty, avg_price, avg_disc, count_order }
    }
}

impl From<PricingJson> for Pricing {
    fn from(row: PricingJson) -> Self {
        let PricingJson { sum_qty, sum_base_price, sum_disc_price, sum_charge, sum_discount, count_order, .. } = row;
        Pricing { sum_qty, sum_base_price, sum_disc_price, sum_charge, sum_discount, count_order }
    }
}

impl Promotion {
    /// Percent of the revenue that is due to promotions; 0 where there is none, since JSON has no NaN.
    pub fn percent(&self) -> f64 {
        if self.total == 0 { 0.0 } else { 100.0 * self.promo as f64 / self.total as f64 }
    }
}

/// [`Promotion`] as it is shown.
#[derive(Serialize, Deserialize)]
struct PromotionJson {
    promo: i64,
    total: i64,
    /// Percent.
    promo_revenue: f64,
}

impl From<Promotion> for PromotionJson {
    fn from(row: Promotion) -> Self {
        PromotionJson { promo: row.promo, total: row.total, promo_revenue: row.percent() }
    }
}

impl From<PromotionJson> for Promotion {
    fn from(row: PromotionJson) -> Self {
        Promotion { promo: row.promo, total: row.total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_fields_are_shown_and_rows_read_back() {
        let row = Promotion { promo: 1, total: 8 };
        let json = serde_json::to_string(&row).expect("JSON");
        assert_eq!(json, r#"{"promo":1,"total":8,"promo_revenue":12.5}"#);
        assert_eq!(serde_json::from_str::<Promotion>(&json).expect("a row"), row);

        let row = Pricing { sum_qty: 6, sum_base_price: 500, sum_disc_price: 1, sum_charge: 2, sum_discount: 10, count_order: 4 };
        let json = serde_json::to_value(&row).expect("JSON");
        assert_eq!((&json["avg_qty"], &json["avg_price"], &json["avg_disc"]), (&1.5.into(), &1.25.into(), &0.025.into()));
        assert_eq!(serde_json::from_value::<Pricing>(json).expect("a row"), row);
        assert_eq!(Promotion { promo: 0, total: 0 }.percent(), 0.0);
    }
}
