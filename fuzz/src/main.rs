//! Hands libFuzzer's inputs to the target that `LAMBDAFLOW_FUZZ_TARGET` names.
#![no_main]

// The targets name the crate of the dataflows. Of that only the parser is built here: all its views, instrumented, would take
// ten minutes and 6 GB to compile.
extern crate self as lambdaflow_dataflows;

#[path = "../../tests/fuzz/edits.rs"]
mod edits;
#[path = "../../tests/fuzz/targets.rs"]
mod targets;
pub mod web_analytics;

use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::panic::catch_unwind;
use std::sync::OnceLock;

static TARGET: OnceLock<targets::Target> = OnceLock::new();

thread_local! {
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

fn target() -> targets::Target {
    // libFuzzer's crate aborts at any panic; the log catches those of the library that it reads columns with.
    // Nearly every input makes it panic, so only the last panic is kept, to be shown when it comes through.
    std::panic::set_hook(Box::new(|panic| SAID.set(format!("{panic}\n{}", Backtrace::capture()))));
    let wanted = std::env::var("LAMBDAFLOW_FUZZ_TARGET").unwrap_or_default();
    let found = targets::TARGETS.iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("LAMBDAFLOW_FUZZ_TARGET={wanted} is no target")).1
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let target = TARGET.get_or_init(target);
    if catch_unwind(|| target(bytes)).is_err() {
        eprintln!("{}", SAID.take());
        std::process::abort(); // libFuzzer then keeps the input
    }
});
