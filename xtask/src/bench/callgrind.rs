//! What callgrind wrote: instructions by function and source file, and who called whom.
//!
//! It reads the format and shares costs out among parts that it is given; which parts there are it does not know.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result};

/// A function, by its place in [`Profile::functions`].
type Function = usize;
/// A source file, by its place in [`Profile::files`].
type File = usize;

/// One profile of one process.
#[derive(Debug, Default)]
pub(super) struct Profile {
    /// Each with the file that it is defined in.
    functions: Vec<(String, File)>,
    files: Vec<String>,
    /// Instructions of a function itself, by the file that they come from: what was inlined keeps its own.
    own: HashMap<(Function, File), u64>,
    /// Instructions of a callee and all that it called, by the caller and the file that the call stands in.
    calls: HashMap<(Function, File, Function), u64>,
}

/// What the instructions of a file, or of a function by its file, belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Belongs<P> {
    To(P),
    /// A helper that everybody uses: to whoever called it.
    ToCaller,
    /// Nobody has said.
    Unknown,
}

/// Instructions by part, and what belongs to none, by name.
#[derive(Debug, PartialEq)]
pub(super) struct Shares<P> {
    pub(super) parts: BTreeMap<P, f64>,
    pub(super) unknown: BTreeMap<String, f64>,
}

/// Names are told once, with a number: `(12) name`, and then by the number alone.
#[derive(Default)]
struct Names {
    numbers: HashMap<String, usize>,
}

impl Names {
    /// The place of a name, which is added if it is new.
    fn place(&mut self, text: &str, add: impl FnOnce(&str) -> usize) -> Result<usize> {
        let (number, name) = match text.split_once(' ') {
            Some((number, name)) if number.starts_with('(') => (number, Some(name)),
            _ if text.starts_with('(') => (text, None),
            _ => (text, Some(text)),
        };
        if let Some(place) = self.numbers.get(number) {
            return Ok(*place);
        }
        let place = add(name.with_context(|| format!("callgrind did not name {number}"))?);
        self.numbers.insert(number.to_owned(), place);
        Ok(place)
    }
}

impl Profile {
    /// Reads a file of callgrind's.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut profile = Self::default();
        let (mut files, mut functions) = (Names::default(), Names::default());
        let (mut defined_in, mut file, mut function) = (None, None, None);
        let (mut called_file, mut called) = (None, None);
        let mut is_call = false;
        for line in text.lines() {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            match key {
                "fl" | "fi" | "fe" => {
                    file = Some(profile.file(&mut files, value)?);
                    if key == "fl" {
                        defined_in = file;
                    }
                }
                "fn" => {
                    let home = defined_in.context("a function without a file")?;
                    function = Some(profile.function(&mut functions, value, home)?);
                    called_file = None;
                }
                "cfi" | "cfl" => called_file = Some(profile.file(&mut files, value)?),
                "cfn" => {
                    // Where it stands in the caller's file, that is not told.
                    let home = called_file.take().or(file).context("a call without a file")?;
                    called = Some(profile.function(&mut functions, value, home)?);
                }
                "calls" => is_call = true,
                _ if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) => {
                    let cost = line.split_ascii_whitespace().nth(1).unwrap_or("0");
                    let cost: u64 = cost.parse().with_context(|| format!("not a line of callgrind's: {line}"))?;
                    let (function, file) = (function.context("a cost of nothing")?, file.context("a cost nowhere")?);
                    if is_call {
                        let called = called.take().context("a call of nothing")?;
                        *profile.calls.entry((function, file, called)).or_default() += cost;
                    } else {
                        *profile.own.entry((function, file)).or_default() += cost;
                    }
                    is_call = false;
                }
                _ => {}
            }
        }
        anyhow::ensure!(!profile.own.is_empty(), "callgrind counted nothing");
        Ok(profile)
    }

    fn file(&mut self, names: &mut Names, text: &str) -> Result<File> {
        names.place(text, |name| {
            self.files.push(name.to_owned());
            self.files.len() - 1
        })
    }

    /// A call may come before the definition, and names the file too.
    fn function(&mut self, names: &mut Names, text: &str, home: File) -> Result<Function> {
        names.place(text, |name| {
            self.functions.push((name.to_owned(), home));
            self.functions.len() - 1
        })
    }

    /// All instructions.
    pub(super) fn total(&self) -> u64 {
        self.own.values().sum()
    }

    /// Shares all instructions out. `of` is asked for a function's name and a file, that of the instructions first and
    /// then that of the function they were inlined into. What belongs to callers is shared among them by what their
    /// calls cost.
    pub(super) fn share<P: Copy + Ord>(&self, of: impl Fn(&str, &str) -> Belongs<P>) -> Shares<P> {
        let belongs = |function: Function, file: File| {
            let (name, home) = &self.functions[function];
            match of(name, &self.files[file]) {
                Belongs::ToCaller => of(name, &self.files[*home]),
                known => known,
            }
        };
        let mut shares = Shares { parts: BTreeMap::new(), unknown: BTreeMap::new() };
        let own = self.own.iter().map(|(&(function, file), &cost)| (function, file, cost as f64));
        let mut waiting = self.give(&mut shares, belongs, own);
        let callers = self.callers();
        // Helpers call helpers, and some each other: what goes round is soon next to nothing.
        for _ in 0..ROUNDS {
            let mut given = Vec::new();
            for (function, amount) in waiting {
                let Some(callers) = callers.get(&function) else {
                    shares.not_known(&self.functions[function].0, amount);
                    continue;
                };
                let all: f64 = callers.iter().map(|(.., cost)| cost).sum();
                given.extend(callers.iter().map(|&(caller, file, cost)| (caller, file, amount * cost / all)));
            }
            waiting = self.give(&mut shares, belongs, given.into_iter());
        }
        for (function, amount) in waiting {
            shares.not_known(&self.functions[function].0, amount);
        }
        shares
    }

    /// Gives amounts to the parts that they belong to, and gives back what belongs to callers.
    fn give<P: Copy + Ord>(
        &self,
        shares: &mut Shares<P>,
        belongs: impl Fn(Function, File) -> Belongs<P>,
        amounts: impl Iterator<Item = (Function, File, f64)>,
    ) -> HashMap<Function, f64> {
        let mut waiting: HashMap<Function, f64> = HashMap::new();
        for (function, file, amount) in amounts {
            match belongs(function, file) {
                Belongs::To(part) => *shares.parts.entry(part).or_default() += amount,
                Belongs::ToCaller => *waiting.entry(function).or_default() += amount,
                Belongs::Unknown => shares.not_known(&self.files[file], amount),
            }
        }
        waiting
    }

    /// By function: who calls it, from which file, and what these calls cost.
    fn callers(&self) -> HashMap<Function, Vec<(Function, File, f64)>> {
        let mut callers: HashMap<Function, Vec<_>> = HashMap::new();
        for (&(caller, file, called), &cost) in &self.calls {
            if caller != called && cost > 0 {
                callers.entry(called).or_default().push((caller, file, cost as f64));
            }
        }
        callers
    }
}

impl<P> Shares<P> {
    fn not_known(&mut self, name: &str, amount: f64) {
        *self.unknown.entry(name.to_owned()).or_default() += amount;
    }
}

/// How deep helpers may call helpers.
const ROUNDS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "\
# callgrind format
version: 1
positions: line
events: Ir

ob=(1) /bin/gateway
fl=(1) /work/edge.rs
fn=(1) serve
10 100
+5 20
fi=(2) /library/vec.rs
3 7
fe=(1)
cfi=(3) /http/map.rs
cfn=(2) insert
calls=4 50
12 40
fl=(4) /work/routing.rs
fn=(3) decide
* 30
cfn=(2)
calls=2 +3
* 20

fl=(3)
fn=(2)
1 50
cfi=(2)
cfn=(4) grow
calls=1 3
2 10

fl=(2)
fn=(4)
9 10
fn=(5) main
9 1
fl=(5) /odd/thing.c
fn=(6) odd
9 2
totals: 220
";

    fn of(_: &str, file: &str) -> Belongs<&'static str> {
        match file {
            "/work/edge.rs" => Belongs::To("edge"),
            "/work/routing.rs" => Belongs::To("routing"),
            "/http/map.rs" | "/library/vec.rs" => Belongs::ToCaller,
            _ => Belongs::Unknown,
        }
    }

    #[test]
    fn helpers_are_shared_among_those_who_call_them() {
        let profile = Profile::parse(WRITTEN).expect("callgrind's format");
        assert_eq!(profile.total(), 220);
        let shares = profile.share(of);
        // 60 of the map with what it calls: two thirds were called from the edge, by what the calls cost.
        let rounded: BTreeMap<_, _> = shares.parts.into_iter().map(|(part, cost)| (part, cost.round())).collect();
        assert_eq!(rounded, BTreeMap::from([("edge", 100.0 + 20.0 + 7.0 + 40.0), ("routing", 30.0 + 20.0)]));
    }

    #[test]
    fn what_nobody_has_named_is_told() {
        let shares = Profile::parse(WRITTEN).expect("callgrind's format").share(of);
        let unknown = BTreeMap::from([("main".to_owned(), 1.0), ("/odd/thing.c".to_owned(), 2.0)]);
        assert_eq!(shares.unknown, unknown);
    }

    #[test]
    fn nothing_and_nonsense_are_refused() {
        assert!(Profile::parse("").is_err());
        assert!(Profile::parse("fl=(1) a\nfn=(1) b\n1 x\n").is_err());
        assert!(Profile::parse("fl=(1)\n").is_err());
        assert!(Profile::parse("1 1\n").is_err());
    }

    #[test]
    fn helpers_that_call_each_other_come_to_an_end() {
        let written =
            "fl=(1) /library/vec.rs\nfn=(1) a\n1 8\ncfn=(2) b\ncalls=1 1\n1 9\nfn=(2)\n1 8\ncfn=(1)\ncalls=1 1\n1 9\n";
        let shares = Profile::parse(written).expect("callgrind's format").share(of);
        assert!(shares.parts.is_empty());
        assert!((shares.unknown.values().sum::<f64>() - 16.0).abs() < 1e-6, "{shares:?}");
    }
}
