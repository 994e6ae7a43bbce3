//! Files that are no YAML, or no YAML that a configuration may be.

use router_config::{ConfigError, Sources, load};

use super::check;
use crate::settings::{Router, router};

#[test]
fn a_key_that_stands_twice_is_refused() {
    check(
        router("node:\n  id: gw-1\n  id: gw-2\n"),
        r#"
error: the key `node.id` stands twice
 --> router.yaml:3:3
  |
3 |   id: gw-2
  |   ^^ found it again here
  |
  = help: it stands first in line 2, column 3
"#,
    );
}

#[test]
fn a_mapping_in_a_mapping_on_one_line_is_a_syntax_error() {
    check(
        router("node: id: gw-1\n"),
        r#"
error: the file is not valid YAML
 --> router.yaml:1:9
  |
1 | node: id: gw-1
  |         ^ mapping values are not allowed in this context
"#,
    );
}

#[test]
fn a_bracket_that_is_not_closed_is_a_syntax_error() {
    check(
        router("node:\n  neighbor_regions: [eu-central\nhttp: {}\n"),
        r#"
error: the file is not valid YAML
 --> router.yaml:3:5
  |
3 | http: {}
  |     ^ illegal placement of ':' indicator
"#,
    );
}

#[test]
fn a_quote_that_is_not_closed_is_shown_where_the_text_ends() {
    check(
        router("node: { id: \"gw-1 }\n\n"),
        r#"
error: the file is not valid YAML
 --> router.yaml:1:13
  |
1 | node: { id: "gw-1 }
  |             ^ unclosed quote
"#,
    );
}

#[test]
fn a_tab_is_a_syntax_error() {
    check(
        router("node:\n\tid: gw-1\n"),
        r#"
error: the file is not valid YAML
 --> router.yaml:2:2
  |
2 |  id: gw-1
  |  ^ tabs disallowed within this context (block indentation)
"#,
    );
}

#[test]
fn an_unquoted_template_in_brackets_is_told_to_quote() {
    check(
        router("services: { orders: { endpoints: [{ method: GET, path: /orders/{id} }] } }\n"),
        r#"
error: the file is not valid YAML
 --> router.yaml:1:64
  |
1 | services: { orders: { endpoints: [{ method: GET, path: /orders/{id} }] } }
  |                                                                ^ while parsing a flow mapping, did not find expected ',' or '}'
  |
  = help: inside brackets, quote text that holds `{` or `}`: `"/orders/{id}"`
"#,
    );
}

#[test]
fn a_list_at_the_root_is_refused() {
    check(
        router("- node\n"),
        r#"
error: the file is not a map
 --> router.yaml:1:1
  |
1 | - node
  | ^ found a list
  |
  = allowed: sections as keys with their settings, such as `node: { id: gw-1 }`
"#,
    );
}

#[test]
fn two_documents_are_refused() {
    check(
        router("node: {}\n---\nnode: {}\n"),
        r#"
error: the file holds more than one document
 --> router.yaml:3:1
  |
3 | node: {}
  | ^ found a second one
"#,
    );
}

#[test]
fn deep_nesting_is_refused() {
    check(
        router("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n"),
        r#"
error: the file is larger or deeper than a configuration may be
 --> router.yaml:1:33
  |
1 | [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[
  |                                 ^ a limit is passed here
  |
  = allowed: 32 levels, 100000 values (counted again for each alias), and 1000 aliases
"#,
    );
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    check(
        router(
            "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n",
        ),
        r#"
error: the file is larger or deeper than a configuration may be
 --> router.yaml:1:16
  |
1 | a: &a [x,x,x,x,x,x,x,x,x,x]
  |                ^ a limit is passed here
  |
  = allowed: 32 levels, 100000 values (counted again for each alias), and 1000 aliases
"#,
    );
}

#[test]
fn a_literal_secret_is_masked_where_the_yaml_is_broken() {
    check(
        router("transports:\n  tcp: { shared_secret: hunter2 }}\n"),
        r#"
error: the file is not valid YAML
 --> router.yaml:2:34
  |
2 |   tcp: { shared_secret: **********
  |                                  ^ misplaced bracket
"#,
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load::<Router>(Sources::router().file("/nowhere/router.yaml")).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }) && error.diagnostics().is_empty());
    let text = error.to_string();
    assert!(text.starts_with("error: cannot read the configuration file /nowhere/router.yaml: "), "{text}");
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![b'#'; 2 << 20]).unwrap();
    let error = load::<Router>(Sources::router().file(file.path())).unwrap_err();
    assert!(matches!(error, ConfigError::TooLarge { limit: router_config::FILE_BYTES, .. }), "{error}");
}

#[test]
fn a_file_that_is_not_utf_8_is_shown_at_the_first_bad_byte() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"node:\n  id: gw-\xff\n").unwrap();
    let error = load::<Router>(Sources::router().file(file.path())).unwrap_err();
    let diagnostic = &error.diagnostics()[0];
    assert_eq!(diagnostic.summary, "the file is not text in UTF-8");
    assert_eq!(diagnostic.place.as_ref().unwrap().to_string(), format!("{}:2:10", file.path().display()));
}

#[test]
fn a_diagnostic_can_be_read_by_programs_too() {
    let error = router("health: { heartbeat: 10 }").unwrap_err();
    let diagnostic = &error.diagnostics()[0];
    assert_eq!(diagnostic.key.as_deref(), Some("health.heartbeat"));
    assert_eq!(diagnostic.found, "found `10`");
    assert!(diagnostic.allowed.as_ref().unwrap().starts_with("a duration with units"));
}

#[test]
fn a_wide_character_before_the_mistake_does_not_move_the_column() {
    let error = router("node: { environment: \"prüfung\", workers: x }").unwrap_err();
    assert!(error.to_string().contains("--> router.yaml:1:42"), "{error}");
}
