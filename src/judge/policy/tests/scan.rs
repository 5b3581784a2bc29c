//! The scanner alone, and against Cedar's own idea of where a policy ends.

use super::super::scanner::{Torn, place, statements};

#[test]
fn statements_end_where_cedar_ends_them() {
    let table: &[(&str, &str, usize)] = &[
        ("S01", "", 0),
        ("S02", "// permit (principal, action, resource);\n", 0),
        ("S03", "permit (principal, action, resource);forbid (principal, action, resource);", 2),
        ("S04", "@id(\"a;b\") permit (principal, action, resource);", 1),
        ("S05", "@id(\"a\\\";b\") permit (principal, action, resource);", 1),
        ("S06", "permit (principal, action, resource) // ; \" \n;", 1),
        // A comment ends at CR too.
        ("S07", "// c\rpermit (principal, action, resource);", 1),
        ("S08", "@id(\"//\") permit (principal, action, resource);", 1),
        ("S09", "@id(\"\\\\\") permit (principal, action, resource); // \"", 1),
        ("S10", "\u{feff}", 0),
        ("S11", "permit (principal, action, resource) when { \"\n;\" == \"ä;\" };", 1),
    ];
    for (case, text, count) in table {
        let (found, _) = statements(text);
        assert_eq!(found.len(), *count, "{case}");
        if let Ok(cedar) = text.parse::<cedar_policy::PolicySet>() {
            assert_eq!(cedar.num_of_policies(), *count, "{case}: Cedar");
        }
        for statement in found {
            let cut = &text[statement.offset..statement.offset + statement.text.len()];
            assert_eq!(cut, statement.text, "{case}");
            assert!(cedar_policy::Policy::parse(None, cut).is_ok(), "{case}: {cut}");
        }
    }
}

#[test]
fn torn_ends_have_their_place() {
    let (found, torn) = statements("a; @id(\"x) permit");
    assert_eq!((found.len(), torn), (1, Some(Torn::String(7))));
    let (found, torn) = statements("a;\n  permit (principal) // ;");
    assert_eq!((found.len(), torn), (1, Some(Torn::Statement(5))));
    let (_, torn) = statements("a; // end");
    assert_eq!(torn, None);
}

#[test]
fn places_count_lines_and_characters() {
    let text = "ab\nä€x\n";
    assert_eq!(place(text, 0), (1, 1));
    assert_eq!(place(text, text.find('x').unwrap()), (2, 3));
    assert_eq!(place(text, text.len()), (3, 1));
    assert_eq!(place(text, 4), (2, 1));
    assert_eq!(place(text, usize::MAX), (3, 1));
}

#[test]
fn annotations_and_words_are_found_outside_comments() {
    let text = " // @id\n@ // x\n id(\"id\") @credential(\"arguments\") permit();";
    let (found, _) = statements(text);
    let statement = found.first().unwrap();
    assert_eq!(statement.annotation("id"), text.find("@ //").unwrap());
    assert_eq!(statement.annotation("credential"), text.find("@credential").unwrap());
    assert_eq!(statement.annotation("permit"), statement.offset);
    assert_eq!(statement.word("arguments"), text.find("\"arguments").unwrap());
    assert_eq!(statement.word("x"), statement.offset);
}
