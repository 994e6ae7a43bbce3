//! Every transport of the workspace under the conformance suite.

use std::process::ExitCode;

fn main() -> ExitCode {
    router_conformance::main(integration_tests::carriers::ALL)
}
