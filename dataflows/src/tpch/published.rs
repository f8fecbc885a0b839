//! Holds answers against published ones: tables of text with columns separated by `|`, the first line with their names.
//!
//! Whoever publishes rounds, and says no more than the digits: an exact number of ours must round to the published one, an
//! average must lie within half of its last digit. The order of rows does not matter. A cell `?` stands for anything.

use serde_json::Value;

/// How a column is written.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// As it is, but for spaces at the end.
    Text,
    /// An exact number, shown without its decimal point: so many digits stand behind it.
    Exact(u32),
    /// Derived from exact numbers.
    Derived,
}

use Form::{Derived, Exact, Text};

/// Where the columns of a query's answer stand in a view's row, as JSON pointers, and how they are written.
fn columns(query: &str) -> Option<&'static [(&'static str, Form)]> {
    Some(match query {
        "q1" => &[
            ("/key/0", Text),
            ("/key/1", Text),
            ("/value/sum_qty", Exact(0)),
            ("/value/sum_base_price", Exact(2)),
            ("/value/sum_disc_price", Exact(4)),
            ("/value/sum_charge", Exact(6)),
            ("/value/avg_qty", Derived),
            ("/value/avg_price", Derived),
            ("/value/avg_disc", Derived),
            ("/value/count_order", Exact(0)),
        ],
        "q3" => &[("/key", Exact(0)), ("/value/revenue", Exact(4)), ("/value/o_orderdate", Text), ("/value/o_shippriority", Exact(0))],
        "q4" | "q21" => &[("/key", Text), ("/value", Exact(0))],
        "q5" => &[("/key", Text), ("/value", Exact(4))],
        "q6" => &[("/value", Exact(4))],
        "q10" => &[
            ("/key", Exact(0)),
            ("/value/c_name", Text),
            ("/value/revenue", Exact(4)),
            ("/value/c_acctbal", Exact(2)),
            ("/value/n_name", Text),
            ("/value/c_address", Text),
            ("/value/c_phone", Text),
            ("/value/c_comment", Text),
        ],
        "q12" => &[("/key", Text), ("/value/high_line_count", Exact(0)), ("/value/low_line_count", Exact(0))],
        "q13" => &[("/key", Exact(0)), ("/value", Exact(0))],
        "q14" => &[("/value/promo_revenue", Derived)],
        "q15" => &[
            ("/key", Exact(0)),
            ("/value/s_name", Text),
            ("/value/s_address", Text),
            ("/value/s_phone", Text),
            ("/value/total_revenue", Exact(4)),
        ],
        "q18" => &[
            ("/value/c_name", Text),
            ("/value/c_custkey", Exact(0)),
            ("/key", Exact(0)),
            ("/value/o_orderdate", Text),
            ("/value/o_totalprice", Exact(2)),
            ("/value/sum_qty", Exact(0)),
        ],
        _ => return None,
    })
}

/// Compares the rows of a view, `{"key": .., "value": ..}`, with a published answer. Returns how many rows there are.
///
/// # Errors
/// The first row of either that the other does not have.
pub fn compare(query: &str, rows: &[Value], published: &str) -> Result<usize, String> {
    let columns = columns(query).ok_or_else(|| format!("there is no query `{query}`"))?;
    let mut lines: Vec<&str> = published.lines().filter(|line| !line.trim().is_empty()).skip(1).collect();
    let count = lines.len();
    for row in rows {
        let same = lines.iter().position(|line| same_row(columns, row, line));
        lines.remove(same.ok_or_else(|| format!("{query} has a row that is not published: {row}"))?);
    }
    match lines.first() {
        Some(line) => Err(format!("{query} lacks a published row: {line}")),
        None => Ok(count),
    }
}

fn same_row(columns: &[(&str, Form)], row: &Value, line: &str) -> bool {
    let cells: Vec<&str> = line.split('|').collect();
    cells.len() == columns.len()
        && columns.iter().zip(cells).all(|((pointer, form), cell)| match (row.pointer(pointer), form) {
            (Some(_), _) if cell == "?" => true,
            (Some(Value::String(text)), Text) => text.trim_end() == cell.trim_end(),
            (Some(number), Exact(scale)) => number.as_i64().is_some_and(|number| is_exact(number, *scale, cell.trim())),
            (Some(number), Derived) => number.as_f64().is_some_and(|number| is_near(number, cell.trim())),
            _ => false,
        })
}

/// Digits behind the point of a number in text.
fn digits(cell: &str) -> u32 {
    cell.split_once('.').map_or(0, |(_, behind)| behind.len() as u32)
}

/// Whether a number, `scale` digits of which stand behind its point, rounds to a published one.
fn is_exact(number: i64, scale: u32, cell: &str) -> bool {
    let published: Result<i128, _> = cell.replacen('.', "", 1).parse();
    let (number, digits) = (i128::from(number), digits(cell));
    published.is_ok_and(|published| {
        if digits >= scale {
            return published == number * 10i128.pow(digits - scale);
        }
        let unit = 10i128.pow(scale - digits);
        published == (2 * number.abs() + unit) / (2 * unit) * number.signum()
    })
}

/// Whether a number lies within half of the last published digit, or where `f64` ends.
fn is_near(number: f64, cell: &str) -> bool {
    let half = 0.5 * 0.1f64.powi(digits(cell) as i32);
    // An average of exact numbers is off by two roundings at most, a published one by as much.
    cell.parse().is_ok_and(|published: f64| (number - published).abs() <= half.max(4.0 * f64::EPSILON * published.abs()) * (1.0 + 1e-9))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn exact_numbers_round_to_published_ones() {
        for (number, scale, cell, same) in [
            (12_345, 2, "123.45", true),
            (12_345, 2, "123.4500", true),
            (12_345, 2, "123.5", true),
            (12_345, 2, "123.4", false),
            (12_344, 2, "123.4", true),
            (12_345, 2, "123", true),
            (12_350, 2, "124", true),
            (-12_350, 2, "-124", true),
            (-12_345, 2, "-123.45", true),
            (12_345, 2, "123.46", false),
            (12_345, 0, "12345.00", true),
            (0, 4, "0", true),
            (5, 0, "", false),
            (5, 0, "x", false),
        ] {
            assert_eq!(is_exact(number, scale, cell), same, "{number} e-{scale} and {cell}");
        }
        assert!(is_near(25.522005853257337, "25.52") && is_near(25.515, "25.52") && !is_near(25.5149, "25.52"));
        assert!(is_near(0.05008133906964238, "0.05008133906964238"));
    }

    #[test]
    fn a_row_too_many_or_too_few_or_different_is_told() {
        let rows = [json!({"key": "MAIL", "value": {"high_line_count": 2, "low_line_count": 3}})];
        assert_eq!(compare("q12", &rows, "mode|high|low\nMAIL  |  2|3\n"), Ok(1));
        assert_eq!(compare("q12", &rows, "mode|high|low\nMAIL|?|3\n"), Ok(1));
        assert!(compare("q12", &rows, "mode|high|low\nMAIL|?|4\n").is_err());
        assert!(compare("q12", &rows, "mode|high|low\n").unwrap_err().contains("not published"));
        assert!(compare("q12", &rows, "mode|high|low\nMAIL|2|4\n").unwrap_err().contains("not published"));
        assert!(compare("q12", &[], "mode|high|low\nMAIL|2|3\n").unwrap_err().contains("lacks"));
        assert!(compare("q2", &[], "").unwrap_err().contains("no query"));
    }
}
