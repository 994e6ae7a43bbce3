//! Sibling modules do not import each other in a circle, at any level of a crate.
//!
//! Reads paths (`use` trees, and inline paths that begin with `crate`, `self` or `super`) off the text, follows
//! re-exports by name, and draws an edge between the two siblings under which importer and imported stand. A parent
//! and its children may know each other. It knows nothing of macros, globs or types: what it does not understand
//! it passes over, so it may miss an edge but draws none that is not written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::source::{code_only, line_of, without_tests};

/// A module's path from the crate's root; the root itself is empty.
type ModulePath = Vec<String>;

/// Finds the cycles in one crate. `files` are its sources with their paths from `src/`.
pub(super) fn cycles(crate_name: &str, files: &[(&str, &str)]) -> Vec<String> {
    let has_lib = files.iter().any(|(path, _)| *path == "lib.rs");
    let mut krate = Crate::default();
    for (path, text) in files {
        // Beside a library, main.rs is another crate; so is every file of bin/.
        if (has_lib && *path == "main.rs") || path.starts_with("bin/") || is_test(path) {
            continue;
        }
        let module = module_path(path);
        krate.modules.insert(module.clone());
        krate.read(path, module, &without_tests(&code_only(text)));
    }
    krate.edges().into_iter().flat_map(|(folder, graph)| report(crate_name, &folder, &graph)).collect()
}

#[derive(Default)]
struct Crate {
    modules: BTreeSet<ModulePath>,
    imports: Vec<Import>,
    /// Names that a module has from elsewhere: (module, name) -> where it really is.
    aliases: BTreeMap<(ModulePath, String), ModulePath>,
}

/// One path as it stands in the text.
struct Import {
    module: ModulePath,
    path: Vec<String>,
    /// The name it gets in the importing module, if it comes from a `use`.
    alias: Option<String>,
    place: String,
}

/// Sibling -> imported sibling -> where that is written.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

impl Crate {
    /// Collects the imports of one file.
    fn read(&mut self, file: &str, module: ModulePath, code: &str) {
        let tokens = tokens(code);
        let mut reader = Reader { tokens: &tokens, at: 0 };
        let mut depth = 0_usize;
        let mut inline: Vec<(usize, String)> = Vec::new();
        while let Some(&(token, offset)) = reader.tokens.get(reader.at) {
            let mut here = module.clone();
            here.extend(inline.iter().map(|(_, name)| name.clone()));
            let mut found = Vec::new();
            match token {
                Token::Word("mod") if reader.opens_inline_module() => {
                    if let Some(Token::Word(name)) = reader.peek(1) {
                        inline.push((depth, name.to_owned()));
                        here.push(name.to_owned());
                        self.modules.insert(here.clone());
                    }
                    reader.at += 2;
                }
                Token::Other('{') => {
                    depth += 1;
                    reader.at += 1;
                }
                Token::Other('}') => {
                    depth = depth.saturating_sub(1);
                    if inline.last().is_some_and(|(opened_at, _)| *opened_at == depth) {
                        inline.pop();
                    }
                    reader.at += 1;
                }
                Token::Word("use") => {
                    reader.at += 1;
                    reader.use_tree(&[], &mut found);
                }
                Token::Word("crate" | "self" | "super")
                    if reader.peek(1) == Some(Token::Separator) && !reader.follows_separator() =>
                {
                    found.push((reader.path(), None));
                }
                _ => reader.at += 1,
            }
            let place = format!("{file}:{}", line_of(code, offset));
            self.imports.extend(found.into_iter().map(|(path, alias)| Import {
                module: here.clone(),
                path,
                alias,
                place: place.clone(),
            }));
        }
    }

    /// The imports between siblings, folder by folder.
    fn edges(mut self) -> BTreeMap<ModulePath, Graph> {
        let imports = std::mem::take(&mut self.imports);
        for import in &imports {
            if let (Some(alias), Some(target)) = (&import.alias, self.absolute(import)) {
                self.aliases.insert((import.module.clone(), alias.clone()), target);
            }
        }
        let mut folders: BTreeMap<ModulePath, Graph> = BTreeMap::new();
        for import in &imports {
            let Some(absolute) = self.absolute(import) else { continue };
            let target = self.resolve(&absolute, 0);
            let common = import.module.iter().zip(&target).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (import.module.get(common), target.get(common)) {
                folders
                    .entry(target[..common].to_vec())
                    .or_default()
                    .entry(from.clone())
                    .or_default()
                    .entry(to.clone())
                    .or_insert_with(|| format!("{} ({})", import.place, import.path.join("::")));
            }
        }
        folders
    }

    /// The path from the crate's root, or `None` if it leads out of the crate.
    fn absolute(&self, import: &Import) -> Option<ModulePath> {
        let mut absolute = import.module.clone();
        let mut rest = import.path.iter().peekable();
        match rest.peek()?.as_str() {
            "crate" => {
                absolute.clear();
                rest.next();
            }
            "self" => {
                rest.next();
            }
            "super" => {}
            child => {
                absolute.push(child.to_owned());
                if !self.modules.contains(&absolute) {
                    return None;
                }
                rest.next();
            }
        }
        while rest.next_if(|segment| *segment == "super").is_some() {
            absolute.pop()?;
        }
        absolute.extend(rest.cloned());
        Some(absolute)
    }

    /// The module in which the path ends, re-exports followed. `hops` bounds re-exports that go in a circle.
    fn resolve(&self, absolute: &[String], hops: u8) -> ModulePath {
        let mut module = ModulePath::new();
        for (index, segment) in absolute.iter().enumerate() {
            let mut child = module.clone();
            child.push(segment.clone());
            if self.modules.contains(&child) {
                module = child;
                continue;
            }
            let alias = self.aliases.get(&(module.clone(), segment.clone()));
            if let Some(target) = alias.filter(|_| hops < 8) {
                let mut further = target.clone();
                further.extend_from_slice(&absolute[index + 1..]);
                if further != absolute {
                    return self.resolve(&further, hops + 1);
                }
            }
            break;
        }
        module
    }
}

/// Says the shortest cycle through each module that is in one, each module once.
fn report(crate_name: &str, folder: &[String], graph: &Graph) -> Vec<String> {
    let mut told = BTreeSet::new();
    let mut findings = Vec::new();
    for start in graph.keys() {
        if told.contains(start) {
            continue;
        }
        let Some(cycle) = shortest_cycle(graph, start) else { continue };
        let place = [&[crate_name.to_owned()], folder].concat().join("::");
        let mut finding = format!("{place}: {} -> {start}", cycle.join(" -> "));
        for (index, from) in cycle.iter().enumerate() {
            let to = cycle.get(index + 1).unwrap_or(start);
            finding.push_str(&format!("\n  {from} -> {to} at {}", graph[from][to]));
        }
        findings.push(finding);
        told.extend(cycle);
    }
    findings
}

fn shortest_cycle(graph: &Graph, start: &str) -> Option<Vec<String>> {
    let mut reached_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for next in graph.get(at).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                let mut cycle = vec![at.to_owned()];
                let mut at = at;
                while at != start {
                    at = reached_from.get(at)?;
                    cycle.push(at.to_owned());
                }
                cycle.reverse();
                return Some(cycle);
            }
            if !reached_from.contains_key(next.as_str()) {
                reached_from.insert(next, at);
                queue.push_back(next);
            }
        }
    }
    None
}

/// `session/flow.rs` and `session/flow/mod.rs` are `session::flow`; the roots are the empty path.
fn module_path(file: &str) -> ModulePath {
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let mut path: ModulePath = stem.split('/').map(str::to_owned).collect();
    let is_root = path.len() == 1 && matches!(stem, "lib" | "main");
    if is_root || path.last().is_some_and(|name| name == "mod") {
        path.pop();
    }
    path
}

fn is_test(file: &str) -> bool {
    file.trim_end_matches(".rs").split('/').any(|part| part == "tests")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Separator,
    Other(char),
}

fn tokens(code: &str) -> Vec<(Token<'_>, usize)> {
    let mut tokens = Vec::new();
    let mut rest = code.char_indices().peekable();
    while let Some((start, c)) = rest.next() {
        if c.is_whitespace() {
            continue;
        }
        if c.is_alphanumeric() || c == '_' {
            let mut end = start + c.len_utf8();
            while let Some((at, c)) = rest.next_if(|(_, c)| c.is_alphanumeric() || *c == '_') {
                end = at + c.len_utf8();
            }
            tokens.push((Token::Word(&code[start..end]), start));
        } else if c == ':' && rest.next_if(|(_, c)| *c == ':').is_some() {
            tokens.push((Token::Separator, start));
        } else {
            tokens.push((Token::Other(c), start));
        }
    }
    tokens
}

struct Reader<'a> {
    tokens: &'a [(Token<'a>, usize)],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self, ahead: usize) -> Option<Token<'a>> {
        self.tokens.get(self.at + ahead).map(|(token, _)| *token)
    }

    fn opens_inline_module(&self) -> bool {
        self.peek(2) == Some(Token::Other('{'))
    }

    fn follows_separator(&self) -> bool {
        self.at.checked_sub(1).is_some_and(|before| self.tokens[before].0 == Token::Separator)
    }

    /// Reads `a::b::c`, and stops before what is not a plain segment.
    fn path(&mut self) -> Vec<String> {
        let mut path = Vec::new();
        while let Some(Token::Word(segment)) = self.peek(0) {
            path.push(segment.to_owned());
            self.at += 1;
            if self.peek(0) != Some(Token::Separator) {
                break;
            }
            self.at += 1;
        }
        path
    }

    /// Reads what follows `use`, up to its end, into (path, alias) pairs.
    fn use_tree(&mut self, prefix: &[String], found: &mut Vec<(Vec<String>, Option<String>)>) {
        if self.peek(0) == Some(Token::Separator) {
            // `use ::name` is always another crate.
            while !matches!(self.peek(0), None | Some(Token::Other(';'))) {
                self.at += 1;
            }
            return;
        }
        let mut path = prefix.to_vec();
        path.extend(self.path());
        match self.peek(0) {
            Some(Token::Other('{')) => {
                self.at += 1;
                while !matches!(self.peek(0), None | Some(Token::Other('}' | ';'))) {
                    let before = self.at;
                    self.use_tree(&path, found);
                    if self.peek(0) == Some(Token::Other(',')) || self.at == before {
                        self.at += 1;
                    }
                }
                if self.peek(0) == Some(Token::Other('}')) {
                    self.at += 1;
                }
            }
            Some(Token::Other('*')) => {
                self.at += 1;
                found.push((path, None));
            }
            _ => {
                // `a::{self}` names `a` itself.
                if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
                    path.pop();
                }
                let mut alias = path.last().cloned();
                if self.peek(0) == Some(Token::Word("as")) {
                    if let Some(Token::Word(name)) = self.peek(1) {
                        alias = Some(name.to_owned());
                    }
                    self.at += 2;
                }
                if !path.is_empty() {
                    found.push((path, alias));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let found = cycles("krate", files);
        let first_lines: Vec<_> = found.iter().filter_map(|finding| finding.lines().next()).collect();
        assert_eq!(first_lines, expected, "{found:#?}");
    }

    #[test]
    fn one_way_is_no_cycle() {
        check(
            &[
                ("lib.rs", "mod a; mod b; pub use a::A;"),
                ("a.rs", "use crate::b::B; use std::fmt; use ::b::X;"),
                ("b.rs", "use bytes::Bytes;"),
            ],
            &[],
        );
    }

    #[test]
    fn two_siblings_that_import_each_other_are_a_cycle() {
        let files = [("lib.rs", ""), ("a.rs", "use crate::b::B;\n"), ("b.rs", "\nuse super::a::A;\n")];
        assert_eq!(
            cycles("krate", &files),
            ["krate: a -> b -> a\n  a -> b at a.rs:1 (crate::b::B)\n  b -> a at b.rs:2 (super::a::A)"]
        );
    }

    #[test]
    fn a_longer_cycle_is_told_once() {
        check(
            &[
                ("main.rs", ""),
                ("a.rs", "fn f() { crate::b::g() }"),
                ("b.rs", "use crate::{c::{self, C}, d};"),
                ("c.rs", "use super::*; use crate::a as z;"),
                ("d.rs", ""),
            ],
            &["krate: a -> b -> c -> a"],
        );
    }

    #[test]
    fn what_a_module_holds_counts_for_the_module_among_its_siblings() {
        check(
            &[
                ("lib.rs", ""),
                ("frame.rs", "use crate::session::flow::Window;"),
                ("session.rs", ""),
                ("session/flow.rs", ""),
                ("session/stream.rs", "use crate::frame::Frame; use super::flow;"),
            ],
            &["krate: frame -> session -> frame"],
        );
    }

    #[test]
    fn siblings_in_a_folder_are_checked_too() {
        check(
            &[
                ("lib.rs", ""),
                ("a/mod.rs", "mod x; mod y; use x::X;"),
                ("a/x.rs", "use super::y::Y; use super::Parent;"),
                ("a/y.rs", "use crate::a::x::X;"),
            ],
            &["krate::a: x -> y -> x"],
        );
    }

    #[test]
    fn parent_and_child_may_know_each_other() {
        check(&[("lib.rs", ""), ("a.rs", "mod x; use self::x::X;"), ("a/x.rs", "use crate::a::A;")], &[]);
    }

    #[test]
    fn a_re_export_hides_no_cycle() {
        check(
            &[
                ("lib.rs", "mod a; mod b; pub use self::a::A as Z; pub use b::{B, C};"),
                ("a.rs", "use crate::B;"),
                ("b.rs", "use crate::Z;"),
            ],
            &["krate: a -> b -> a"],
        );
    }

    #[test]
    fn re_exports_in_a_circle_end() {
        check(&[("lib.rs", "mod a; use crate::X as Y; use crate::Y as X;"), ("a.rs", "use crate::X;")], &[]);
    }

    #[test]
    fn tests_comments_and_strings_draw_no_edges() {
        check(
            &[
                ("lib.rs", ""),
                ("a.rs", "use crate::b; /// [`crate::b`]\n"),
                (
                    "b.rs",
                    "//! See crate::a.\nconst S: &str = \"crate::a::A\";\n\
                     #[cfg(test)] mod tests { use crate::a::A; }",
                ),
                ("b/tests.rs", "use crate::a::A;"),
            ],
            &[],
        );
    }

    #[test]
    fn inline_modules_are_modules() {
        check(
            &[
                ("lib.rs", "mod a; pub mod inner { fn f() { if x {} } use crate::a::A; } use a::A;"),
                ("a.rs", "use crate::inner::B;"),
            ],
            &["krate: a -> inner -> a"],
        );
    }

    #[test]
    fn visibility_is_no_import() {
        check(
            &[
                ("lib.rs", ""),
                ("a.rs", "pub(crate) struct A; pub(super) fn f() -> impl Sized + use<> {} use crate::b;"),
                ("b.rs", "pub(in crate::b) struct B;"),
            ],
            &[],
        );
    }

    #[test]
    fn a_binary_beside_a_library_is_another_crate() {
        check(
            &[
                ("lib.rs", ""),
                ("main.rs", "mod a; mod b;"),
                ("a.rs", "use crate::b::B;"),
                ("b.rs", ""),
                ("bin/b.rs", "use crate::a::A;"),
            ],
            &[],
        );
    }
}
