//! What the compiler says when an author errs: each message must name the way out.
//!
//! The expected texts are those of the compiler that CI uses. After an update of it,
//! `TRYBUILD=overwrite cargo test -p lambdaflow-compile-errors` writes them anew; read them before you commit.

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/mistakes/*.rs");
}
