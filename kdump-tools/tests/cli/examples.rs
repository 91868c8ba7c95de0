//! The examples in `cmd/`: what a user types and sees.

#[test]
fn examples() {
    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
}
