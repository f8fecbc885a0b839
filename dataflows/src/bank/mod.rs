//! Transfers between accounts: whatever is asked, and whenever, all balances add up to zero.
//!
//! Money only moves, so a total that is not zero is an answer that mixes two moments. Systems that update joined aggregates
//! one after the other show such totals all the time; the test comes from Jamie Brandon's "Internal consistency in streaming
//! systems" (scattered-thoughts.net, 2021), which found them in Flink's Table API and in ksqlDB. The views are defined the
//! way that makes it hard: credits and debits are summed apart, joined, and summed again. Here every answer is of one tick,
//! whichever layer and generation it comes from.
//!
//! An event is a [`Transfer`]; transfers may come late, days after their time. [`mod@reference`] computes the same answers
//! with plain loops, and **must not share logic with the dataflow**.

mod dataflow;
mod generate;
pub mod reference;

pub use dataflow::bank;
pub use generate::Generator;

use columnar::Columnar;
use lambdaflow::prelude::{Event, Program, Tick};
use lambdaflow::testing::Oracle;
use serde::{Deserialize, Serialize};

/// An amount moves from one account to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Columnar)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Names the transfer; not used by any view.
    pub id: u64,
    /// Event time: UTC, in seconds since 1970-01-01T00:00:00Z.
    pub at: u64,
    /// The account that pays.
    pub from: u64,
    /// The account that is paid; may be the same.
    pub to: u64,
    /// Cents.
    pub amount: i64,
}

impl Event for Transfer {
    const NAME: &'static str = "bank.Transfer";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["id: u64", "at: u64", "from: u64", "to: u64", "amount: i64"];
}

/// Transfers at a tick of the oracle.
const TRANSFERS_PER_TICK: u64 = 100;

/// The program: reads transfers as JSON, one a line.
pub fn program() -> Program<Transfer> {
    let json = |transfer| serde_json::to_string(&transfer).expect("a transfer is representable as JSON");
    Program::new("bank", bank)
        .summary("balances of accounts; they add up to zero in every answer")
        .samples(move |seed| Generator::new(seed).map(json))
        .oracle(oracle())
}

fn oracle() -> Oracle<Transfer> {
    let events = |seed, count| (0..count).zip(Generator::new(seed)).map(|(i, transfer)| (Tick(1 + i / TRANSFERS_PER_TICK), transfer));
    let oracle = Oracle::new(events, |mut events, tables| {
        let columns = ["id", "paid_at", "payer", "payee", "amount"].map(|name| (name, "BIGINT"));
        tables.table("transfers", &columns)?;
        events.try_for_each(|(_, Transfer { id, at, from, to, amount })| {
            tables.row("transfers", &[id.into(), at.into(), from.into(), to.into(), amount.into()])
        })
    });
    let net = "SELECT paid_at - paid_at % 86400 AS day, payee AS account, amount FROM transfers \
               UNION ALL SELECT paid_at - paid_at % 86400, payer, -amount FROM transfers";
    oracle
        .query("credits", "SELECT payee, sum(amount)::BIGINT FROM transfers GROUP BY payee")
        .query("debits", "SELECT payer, sum(amount)::BIGINT FROM transfers GROUP BY payer")
        .query("balance", &format!("SELECT account, sum(amount)::BIGINT FROM ({net}) GROUP BY account"))
        .query("total", &format!("SELECT NULL, sum(amount)::BIGINT FROM ({net}) HAVING count(*) > 0"))
        .query("daily", &format!("SELECT day, account, sum(amount)::BIGINT FROM ({net}) GROUP BY day, account"))
        .query("daily_total", &format!("SELECT day, sum(amount)::BIGINT FROM ({net}) GROUP BY day"))
}
