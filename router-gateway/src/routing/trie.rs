//! A trie of path templates by whole segments: literal beats parameter beats catch-all, with full backtracking (SPEC 2).
//!
//! The general radix tries refuse `/a/{x}` beside `/a/{*rest}`, which are two endpoints here, know nothing of encoded
//! slashes, which only a parameter may take, and cannot go on to the next best template when the best one is not in
//! the selected version. Over segments all three are a few lines. A lookup allocates nothing; it visits each node at
//! most once, so it ends however the templates overlap.

use std::num::NonZeroU32;

use router_common::endpoint::{PathTemplate, Segment};
use router_common::path::{Parameters, RequestPath, normal_literal};
use rustc_hash::FxHashMap;

/// Templates with a value each; templates with an equal canonical form share one.
#[derive(Debug)]
pub struct Trie<T> {
    nodes: Vec<Node<T>>,
}

#[derive(Debug)]
struct Node<T> {
    literals: Literals,
    parameter: Option<NodeIndex>,
    /// The template that ends with this segment.
    here: Option<T>,
    /// The same, with a slash after it.
    slashed: Option<T>,
    /// The template that takes one or more further segments.
    rest: Option<T>,
}

/// A node's place: never 0, as the root is nobody's child, and so an absent child takes no room of its own.
type NodeIndex = NonZeroU32;

const ROOT: usize = 0;

/// The literal segments below a node. Most nodes have none or one, which is compared without hashing.
#[derive(Debug)]
enum Literals {
    None,
    One(Box<str>, NodeIndex),
    Many(FxHashMap<Box<str>, NodeIndex>),
}

impl Literals {
    #[inline]
    fn find(&self, segment: &str) -> Option<NodeIndex> {
        match self {
            Self::None => None,
            Self::One(literal, next) => (**literal == *segment).then_some(*next),
            Self::Many(literals) => literals.get(segment).copied(),
        }
    }

    fn find_or_insert(&mut self, segment: &str, fresh: NodeIndex) -> NodeIndex {
        if let Some(next) = self.find(segment) {
            return next;
        }
        match std::mem::replace(self, Self::None) {
            Self::None => *self = Self::One(segment.into(), fresh),
            Self::One(literal, next) => {
                let literals = [(literal, next), (segment.into(), fresh)];
                *self = Self::Many(literals.into_iter().collect());
            }
            Self::Many(mut literals) => {
                literals.insert(segment.into(), fresh);
                *self = Self::Many(literals);
            }
        }
        fresh
    }
}

fn place_of(index: NodeIndex) -> usize {
    index.get() as usize
}

impl<T> Trie<T> {
    #[must_use]
    pub fn new() -> Self {
        Self { nodes: vec![Node::new()] }
    }

    /// The place of a template's value, empty at first.
    pub fn place(&mut self, template: &PathTemplate) -> &mut Option<T> {
        let mut at = ROOT;
        for segment in template.segments() {
            // Far fewer templates are registered than would fill 32 bits.
            let fresh = u32::try_from(self.nodes.len()).ok().and_then(NodeIndex::new).unwrap_or(NodeIndex::MAX);
            let next = match segment {
                Segment::Literal(literal) => self.nodes[at].literals.find_or_insert(&normal_literal(literal), fresh),
                Segment::Parameter(_) => *self.nodes[at].parameter.get_or_insert(fresh),
                Segment::CatchAll(_) => return &mut self.nodes[at].rest,
            };
            if next == fresh {
                self.nodes.push(Node::new());
            }
            at = place_of(next);
        }
        let node = &mut self.nodes[at];
        if template.has_trailing_slash() { &mut node.slashed } else { &mut node.here }
    }

    /// The best value for a path among those that `accept` takes, and where the parameters stand in the raw path.
    #[inline]
    pub fn find(&self, path: &RequestPath<'_>, accept: impl Fn(&T) -> bool) -> Option<(&T, Parameters)> {
        let mut walk = Walk { nodes: &self.nodes, path: path.normal(), accept, parameters: Parameters::new() };
        let found = match path.normal() {
            "/" => walk.accepted(self.nodes.first()?.here.as_ref()),
            _ => walk.down(ROOT, 0),
        }?;
        Some((found, path.raw_parameters(walk.parameters)))
    }
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Node<T> {
    fn new() -> Self {
        Self { literals: Literals::None, parameter: None, here: None, slashed: None, rest: None }
    }
}

struct Walk<'t, 'p, T, A> {
    nodes: &'t [Node<T>],
    path: &'p str,
    accept: A,
    parameters: Parameters,
}

impl<'t, T, A: Fn(&T) -> bool> Walk<'t, '_, T, A> {
    fn accepted(&self, value: Option<&'t T>) -> Option<&'t T> {
        value.filter(|value| (self.accept)(value))
    }

    /// Goes on below a node with what is left of the path from `at`: nothing, a last slash, or a slash and a segment.
    /// The depth is bounded by the longest template, not by the path.
    fn down(&mut self, node: usize, at: usize) -> Option<&'t T> {
        let nodes = self.nodes;
        let node = nodes.get(node)?;
        let start = at + 1;
        let rest = match self.path.get(start..) {
            None => return self.accepted(node.here.as_ref()),
            Some("") => return self.accepted(node.slashed.as_ref()),
            Some(rest) => rest,
        };
        let segment = rest.bytes().position(|byte| byte == b'/').and_then(|end| rest.get(..end)).unwrap_or(rest);
        let end = start + segment.len();
        if let Some(next) = node.literals.find(segment)
            && let Some(found) = self.down(place_of(next), end)
        {
            return Some(found);
        }
        if let Some(next) = node.parameter {
            self.parameters.push(start, end);
            if let Some(found) = self.down(place_of(next), end) {
                return Some(found);
            }
            self.parameters.pop();
        }
        // An encoded slash would be one segment to us and two to whoever decodes the rest.
        let found = self.accepted(node.rest.as_ref()).filter(|_| !rest.contains("%2F"))?;
        self.parameters.push(start, self.path.len());
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn template(text: &str) -> PathTemplate {
        text.parse().unwrap()
    }

    fn trie(templates: &[&str]) -> Trie<String> {
        let mut trie = Trie::new();
        for text in templates {
            *trie.place(&template(text)) = Some((*text).to_owned());
        }
        trie
    }

    fn find<'p>(trie: &Trie<String>, path: &'p str) -> Option<(String, Vec<&'p str>)> {
        let read = RequestPath::parse(path).unwrap();
        trie.find(&read, |_| true).map(|(value, found)| (value.clone(), found.values(path).collect()))
    }

    fn finds(templates: &[&str], path: &str, expected: &str, values: &[&str]) {
        assert_eq!(find(&trie(templates), path), Some((expected.to_owned(), values.to_vec())), "{path}");
    }

    #[test]
    fn literal_beats_parameter_beats_catch_all() {
        let all = ["/a/b", "/a/{x}", "/a/{*rest}", "/{*all}"];
        finds(&all, "/a/b", "/a/b", &[]);
        finds(&all, "/a/c", "/a/{x}", &["c"]);
        finds(&all, "/a/c/d", "/a/{*rest}", &["c/d"]);
        finds(&all, "/a/", "/{*all}", &["a/"]);
        finds(&all, "/b", "/{*all}", &["b"]);
        assert_eq!(find(&trie(&all), "/"), None);
    }

    #[test]
    fn a_dead_end_behind_a_better_segment_is_left_again() {
        finds(&["/a/b/d", "/a/{x}/c"], "/a/b/c", "/a/{x}/c", &["b"]);
        finds(&["/a/b/c/d", "/{p}/b/{q}/e", "/{*r}"], "/a/b/c/e", "/{p}/b/{q}/e", &["a", "c"]);
        finds(&["/a/b/c/d", "/{p}/b/{q}/e", "/{*r}"], "/a/b/c/f", "/{*r}", &["a/b/c/f"]);
        finds(&["/{a}/{b}/{c}", "/{a}/{*r}"], "/1/2/3/4", "/{a}/{*r}", &["1", "2/3/4"]);
    }

    #[test]
    fn a_trailing_slash_is_significant() {
        let all = trie(&["/a", "/b/", "/c", "/c/", "/"]);
        assert!(find(&all, "/a").is_some() && find(&all, "/a/").is_none());
        assert!(find(&all, "/b/").is_some() && find(&all, "/b").is_none());
        assert_eq!(find(&all, "/c/").unwrap().0, "/c/");
        assert_eq!(find(&all, "/").unwrap().0, "/");
    }

    #[test]
    fn the_next_best_is_found_when_the_best_is_not_accepted() {
        let all = trie(&["/a/b", "/a/{x}", "/{*r}"]);
        let read = RequestPath::parse("/a/b").unwrap();
        let (value, found) = all.find(&read, |value| value != "/a/b").unwrap();
        assert_eq!((value.as_str(), found.values("/a/b").collect::<Vec<_>>()), ("/a/{x}", vec!["b"]));
        let (value, found) = all.find(&read, |value| value == "/{*r}").unwrap();
        assert_eq!((value.as_str(), found.values("/a/b").collect::<Vec<_>>()), ("/{*r}", vec!["a/b"]));
    }

    #[test]
    fn encoded_slashes_fit_parameters_only_and_offsets_are_raw() {
        let all = ["/f/{x}", "/f/{*r}", "/g/{*r}"];
        finds(&all, "/%66/a%2fb", "/f/{x}", &["a%2fb"]);
        assert_eq!(find(&trie(&all), "/f/a%2Fb/c"), None);
        assert_eq!(find(&trie(&all), "/g/a%2Fb"), None);
        finds(&all, "/g/%61/b%20c/", "/g/{*r}", &["%61/b%20c/"]);
    }

    fn any_template() -> impl Strategy<Value = String> {
        let segment = prop_oneof![4 => Just("a"), 3 => Just("b"), 4 => Just("{}")];
        (prop::collection::vec(segment, 0..5), prop_oneof![3 => Just(""), 1 => Just("/"), 1 => Just("/{*rest}")])
            .prop_map(|(segments, end)| {
                let mut text = String::new();
                for (number, segment) in segments.iter().enumerate() {
                    text.push('/');
                    text.push_str(&segment.replace("{}", &format!("{{p{number}}}")));
                }
                text.push_str(end);
                if text.is_empty() { "/".to_owned() } else { text }
            })
    }

    /// What SPEC 2 says, without a trie: of all that match, the one whose kinds of segments come first.
    fn reference<'t>(templates: &'t [PathTemplate], path: &RequestPath<'_>) -> Option<(&'t PathTemplate, Parameters)> {
        let kinds = |template: &PathTemplate| -> Vec<u8> {
            let kind = |segment: &Segment| match segment {
                Segment::Literal(_) => 0,
                Segment::Parameter(_) => 1,
                Segment::CatchAll(_) => 2,
            };
            template.segments().iter().map(kind).collect()
        };
        let matching = templates.iter().filter_map(|template| template.matches(path).map(|found| (template, found)));
        matching.min_by_key(|(template, _)| kinds(template))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn the_trie_agrees_with_the_reference_matcher(
            texts in prop::collection::vec(any_template(), 1..12),
            paths in prop::collection::vec("(/(a|b|c|%61|a%2Fb)){0,5}/?", 1..12),
        ) {
            let templates: Vec<PathTemplate> =
                texts.iter().filter(|text| text.as_str() != "//").map(|text| template(text)).collect();
            let mut trie = Trie::new();
            for template in &templates {
                *trie.place(template) = Some(template.canonical());
            }
            for path in paths.iter().filter(|path| !path.is_empty()) {
                let Ok(read) = RequestPath::parse(path) else { continue };
                let found = trie.find(&read, |_| true).map(|(value, found)| (value.clone(), found));
                let expected = reference(&templates, &read).map(|(template, found)| (template.canonical(), found));
                prop_assert_eq!(
                    found.as_ref().map(|(value, found)| (value, found.as_slice())),
                    expected.as_ref().map(|(value, found)| (value, found.as_slice())),
                    "{}", path
                );
            }
        }
    }
}
