//! Goals beside what was reached. They are for reading: nothing fails by them.

use serde::Serialize;

use super::samples::Summary;
use super::table;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wanted {
    AtMost,
    AtLeast,
}

/// One goal, and where we stand.
#[derive(Debug, Serialize)]
pub(super) struct Goal {
    pub(super) name: &'static str,
    pub(super) what: String,
    pub(super) wanted: Wanted,
    pub(super) goal: f64,
    /// What would be better still.
    pub(super) stretch: Option<f64>,
    pub(super) reached: Option<Summary>,
    pub(super) unit: &'static str,
}

impl Goal {
    fn meets(&self, bound: f64, reached: f64) -> bool {
        match self.wanted {
            Wanted::AtMost => reached <= bound,
            Wanted::AtLeast => reached >= bound,
        }
    }

    fn verdict(&self) -> &'static str {
        let Some(reached) = self.reached else { return "not measured" };
        if self.stretch.is_some_and(|stretch| self.meets(stretch, reached.median)) {
            "reached, beyond the stretch"
        } else if self.meets(self.goal, reached.median) {
            "reached"
        } else {
            "missed"
        }
    }

    fn row(&self) -> Vec<String> {
        let show = |number: f64| if number >= 1e3 { table::rate(number) } else { table::hundredths(number) };
        let sign = match self.wanted {
            Wanted::AtMost => "<=",
            Wanted::AtLeast => ">=",
        };
        let stretch = self.stretch.map_or_else(String::new, |stretch| format!(" ({})", show(stretch)));
        let goal = format!("{sign} {}{stretch}{}", show(self.goal), self.unit);
        let reached = self.reached.map_or_else(|| "-".to_owned(), |reached| reached.spread(show));
        vec![self.name.to_owned(), self.what.clone(), goal, reached, self.verdict().to_owned()]
    }
}

pub(super) fn shown(goals: &[Goal]) -> String {
    let head = table::row(["goal", "figure", "wanted (stretch)", "reached", ""]);
    let rows: Vec<_> = std::iter::once(head).chain(goals.iter().map(Goal::row)).collect();
    let text = table::aligned(&rows, 5);
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal(wanted: Wanted, reached: Option<f64>) -> Goal {
        let reached = reached.and_then(|number| Summary::of([number]));
        Goal { name: "P1", what: "x".to_owned(), wanted, goal: 2.0, stretch: Some(1.0), reached, unit: " x nginx" }
    }

    #[test]
    fn verdicts() {
        let verdict = |wanted, reached| goal(wanted, reached).verdict();
        assert_eq!(verdict(Wanted::AtMost, None), "not measured");
        assert_eq!(verdict(Wanted::AtMost, Some(2.1)), "missed");
        assert_eq!(verdict(Wanted::AtMost, Some(2.0)), "reached");
        assert_eq!(verdict(Wanted::AtMost, Some(0.9)), "reached, beyond the stretch");
        assert_eq!(verdict(Wanted::AtLeast, Some(1.9)), "reached, beyond the stretch");
        let without = Goal { stretch: None, ..goal(Wanted::AtLeast, Some(1.9)) };
        assert_eq!(without.verdict(), "missed");
    }

    #[test]
    fn a_goal_is_one_line() {
        let text = shown(&[goal(Wanted::AtMost, Some(0.9))]);
        let last = text.lines().last().expect("a line");
        let expected = "P1 x <= 2.00 (1.00) x nginx 0.90 (0.90..0.90) reached, beyond the stretch";
        assert_eq!(last.split_whitespace().collect::<Vec<_>>().join(" "), expected);
    }
}
