//! Faults of real processes and of the kernel: what a simulated disk can only assume. Rows of the fault catalogue are in
//! docs/reliability.md.
//!
//! A log is written by a child, which is this binary in another role; strace lets its system calls fail, limits starve it, a
//! file system of its own is filled, cut off or unreadable. Whatever happened: what was acknowledged is there once, and
//! what is there is what was sent, in order.
mod child;
mod kernel;
#[path = "../log_support/mod.rs"]
mod log_support;
mod processes;
mod tools;

#[test]
fn child_role() {
    child::play();
}

/// The page is a contract only as long as its tests exist.
#[test]
fn the_page_on_reliability_names_tests_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut sources, mut dirs) = (String::new(), vec![root.join("tests"), root.join("dataflows/tests"), root.join("src")]);
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let page = std::fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let is_name = |text: &&str| text.matches('_').count() >= 3 && text.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(is_name).filter(|name| !name.starts_with("LAMBDAFLOW")).collect();
    assert!(named.len() > 50, "{} names", named.len());
    let missing: Vec<_> = named.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}
