//! The stand-in against the reference: rows that quote it, and behaviour that no row can show.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking and says on stderr why it is skipped"
)]

mod behaviour;
mod containers;
mod faults;
mod grammar;
mod texts;
mod world;

#[test]
fn the_contract_has_at_least_120_rows() {
    let rows = grammar::ROWS.len() + texts::ROWS.len();
    assert!(rows >= 120, "{rows}");
}
