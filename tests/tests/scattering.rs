//! The conformance suite on a carrier that delivers small messages in any order.

use std::process::ExitCode;

fn main() -> ExitCode {
    router_conformance::main(&[integration_tests::carriers::SCATTERING])
}
