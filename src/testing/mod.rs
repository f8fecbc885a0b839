//! The test kit: checks that a dataflow keeps the layer law, that a monoid is one, and that answers are those of SQL.

mod codec;
mod law;
mod loopback;
mod monoids;
mod oracle;
mod team;

pub use codec::{CodecCost, codec_cost};
pub use law::{Answers, Law, Random, answers_after_cuts, check_layers, check_layers_by_tick};
pub use loopback::loopback;
pub use monoids::{check_abelian, check_monoid};
pub use oracle::{Cell, Compared, Oracle, OracleError, PYTHON_VARIABLE, Report, Scale, Tables};
pub use team::Connected;
