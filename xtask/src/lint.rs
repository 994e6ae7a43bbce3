//! `cargo xtask lint`: format, clippy, documentation, and the house rules.
//!
//! Every check runs, whatever the earlier ones said, so that one call shows all there is to mend.

use anyhow::{Result, bail};

use crate::process::Workspace;
use crate::tidy;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let steps = [
        workspace.cargo(["fmt", "--all", "--check"]),
        workspace.cargo(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]),
        // With all features nobody notices what one of them is needed for.
        workspace.cargo(["clippy", "--package", "microservice-sdk", "--no-default-features", "--", "-D", "warnings"]),
        workspace.cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"),
    ];

    let mut verdicts = Vec::new();
    for step in steps {
        let name = step.shown().to_owned();
        verdicts.push((name, step.run()?));
    }
    let tidy = tidy::run(workspace);
    if let Err(error) = &tidy {
        eprintln!("xtask: {error:#}");
    }
    verdicts.push(("cargo xtask tidy".to_owned(), tidy.is_ok()));

    eprintln!("==> lint summary");
    for (name, passed) in &verdicts {
        eprintln!("    {} {name}", if *passed { "ok    " } else { "FAILED" });
    }
    let failed = verdicts.iter().filter(|(_, passed)| !passed).count();
    if failed > 0 {
        bail!("{failed} of {} checks failed", verdicts.len());
    }
    Ok(())
}
