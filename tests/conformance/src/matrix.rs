//! The capability matrix: what each transport says of itself, and which scenarios it therefore passes.

use std::fmt::Write as _;

use crate::carrier::Transport;
use crate::scenario::{Needs, Scenario};
use crate::scenarios::AREAS;

/// The matrix of these transports, in Markdown. A scenario that stands there as `yes` is run by [`main`](crate::main).
#[must_use]
pub fn matrix(transports: &[Transport]) -> String {
    let mut text = String::new();
    table(&mut text, "", transports, |row| {
        row("frames arrive in order", &|transport| yes(transport.capabilities().ordered));
        row("bodies larger than a frame", &|transport| yes(transport.capabilities().streaming));
        row("largest frame, bytes", &|transport| transport.capabilities().max_frame.to_string());
        row("one address leads to all gateways there", &|transport| yes(transport.discovers()));
        row("needs a shared secret", &|transport| yes(transport.needs_secret()));
        for (what, needs) in
            [("scenarios passed", None), ("scenarios that show what it refuses", Some(Needs::SmallMessages))]
        {
            row(what, &|transport| {
                let met = |scenario: &&Scenario| scenario.needs.are_met_by(transport.capabilities());
                let counted = |scenario: &&Scenario| needs.is_none_or(|needs| scenario.needs == needs);
                AREAS.iter().flat_map(|(_, scenarios)| *scenarios).filter(met).filter(counted).count().to_string()
            });
        }
    });
    for (area, scenarios) in AREAS {
        let _ = write!(text, "\n## {}\n\n", area.replace('_', " "));
        table(&mut text, "scenario", transports, |row| {
            for scenario in *scenarios {
                row(&scenario.name.replace('_', " "), &|transport| cell(scenario, transport).to_owned());
            }
        });
    }
    text
}

fn cell(scenario: &Scenario, transport: Transport) -> &'static str {
    match (scenario.needs.are_met_by(transport.capabilities()), scenario.needs) {
        (true, _) => "yes",
        (false, Needs::SmallMessages) => "-",
        (false, _) => "refused",
    }
}

fn yes(is_so: bool) -> String {
    if is_so { "yes" } else { "no" }.to_owned()
}

type Row<'a> = dyn FnMut(&str, &dyn Fn(Transport) -> String) + 'a;

fn table(text: &mut String, corner: &str, transports: &[Transport], fill: impl FnOnce(&mut Row<'_>)) {
    let names: Vec<_> = transports.iter().map(|transport| transport.name()).collect();
    let _ = writeln!(text, "| {corner} | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    fill(&mut |title, value| {
        let values: Vec<_> = transports.iter().map(|&transport| value(transport)).collect();
        let _ = writeln!(text, "| {title} | {} |", values.join(" | "));
    });
}
