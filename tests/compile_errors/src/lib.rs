//! Only tests: see `tests/compile_errors.rs`.
