//! `lambdaflow log`: looking into a log without knowing its events.

use super::Failure;
use super::arguments::{LogInfo, LogVerify};

pub(super) fn info(_arguments: &LogInfo) -> Result<u8, Failure> {
    todo!()
}

pub(super) fn verify(_arguments: &LogVerify) -> Result<u8, Failure> {
    todo!()
}
