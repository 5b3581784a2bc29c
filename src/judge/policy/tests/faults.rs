//! Everything that must not load, and where the fault is said to be.

use super::*;
use crate::limits;

/// Case, text, and (line, column, part of what is wrong) of each fault, in order.
type Row = (&'static str, &'static str, &'static [(u32, u32, &'static str)]);

const TABLE: &[Row] = &[
    (
        "steps on a permit",
        "@id(\"a\") @require_scope(\"s\") permit (principal, action, resource)\n\
         when { context.scopes.contains(\"s\") };",
        &[(1, 10, "@require_scope on a permit")],
    ),
    (
        "steps that cannot be taken",
        "@id(\"a\") @require_scope(\"a b\") @require_acr(\"\") @max_age(\"1h\")\n\
         forbid (principal, action, resource) unless { context.scopes.contains(\"s\") &&\n\
         context has acr && context has auth_time };",
        &[
            (1, 10, "this value of @require_scope is not usable"),
            (1, 32, "this value of @require_acr is not usable"),
            (1, 49, "this value of @max_age is not usable"),
        ],
    ),
    (
        "an age beyond a year",
        "@id(\"a\") @max_age(\"31536001\") forbid (principal, action, resource)\n\
         unless { context has auth_time };",
        &[(1, 10, "this value of @max_age is not usable")],
    ),
    (
        "the context as a whole",
        "@id(\"a\") permit (principal, action, resource) when { context == context };",
        &[(1, 54, "`context` as a whole")],
    ),
    ("P01", "permit (principal, action, resource);", &[(1, 1, "without @id")]),
    (
        "P02",
        "@id(\"a\")\npermit (principal, action, resource);\n \
         @id(\"a\")\npermit (principal, action, resource);",
        &[(3, 2, "@id \"a\" is taken by the policy at p/a.cedar:1")],
    ),
    ("P03", "\n  @id(\"a\") permit (principal, action resource);", &[(2, 38, "unexpected token")]),
    (
        "P04",
        "@id(\"a\") permit (principal, action, resource)\nwhen { context.nope == 1 };",
        &[(2, 8, "nope")],
    ),
    (
        "P05",
        "@id(\"a\") @reason(\"x\") permit (principal, action, resource);",
        &[(1, 10, "unknown annotation @reason")],
    ),
    (
        "P06",
        "@id(\"a\")\n@require_scope(\"s\") forbid (principal, action, resource);",
        &[(2, 1, "@require_scope on a policy that does not look at it")],
    ),
    (
        "P07",
        "@id(\"a\") @require_acr(\"s\") @max_age(\"1\") forbid (principal, action, resource);",
        &[
            (1, 10, "@require_acr on a policy that does not look at it"),
            (1, 28, "@max_age on a policy that does not look at it"),
        ],
    ),
    (
        "P08",
        "@id(\"a\") permit (principal, action, resource)\nwhen { context.arguments == {} };",
        &[(2, 16, "`context.arguments` as a whole")],
    ),
    (
        "P09",
        "@id(\"a\") permit (principal, action, resource)\n\
         when { context[\"arguments\"][\"github/get\"].x == 1 };",
        &[(2, 43, "the arguments of tool \"github/get\" are not declared")],
    ),
    (
        "P10",
        "@id(\"a\") permit (principal, action, resource)\nwhen { context.source has country };",
        &[(2, 27, "there is no database of countries")],
    ),
    (
        "P11",
        "@id(\"a\") permit (principal, action, resource in Server::\"gitlab\");",
        &[(1, 57, "there is no [[server]] \"gitlab\"")],
    ),
    (
        "P12",
        "@id(\"a\") forbid (principal, action, resource)\nwhen { resource == Tool::\"gitlab/x\" };",
        &[(2, 26, "there is no [[server]] \"gitlab\"")],
    ),
    (
        "P13",
        "@id(\"a\") permit (principal, action, resource == Tool::\"get\");",
        &[(1, 55, "does not say its server")],
    ),
    (
        "P14",
        "@id(\"a\") permit (principal, action, resource == Gateway::\"gw\");",
        &[(1, 58, "Gateway::\"gateway\"")],
    ),
    (
        "P15",
        "@id(\"a\") @credential(\"nope\") \
         permit (principal, action, resource in Server::\"github\");",
        &[(1, 10, "there is no [[credential]] \"nope\"")],
    ),
    (
        "P16",
        "@id(\"a\") @credential(\"github-user\") \
         permit (principal, action, resource in Server::\"jira\");",
        &[(1, 10, "credential \"github-user\" is not for server \"jira\"")],
    ),
    (
        "P17",
        "@id(\"a\") @credential(\"github-user\") \
         permit (principal, action, resource);",
        &[(1, 10, "credential \"github-user\" is not for server \"jira\"")],
    ),
    (
        "P18",
        "@id(\"a\") @credential(\"both\") forbid (principal, action, resource);",
        &[(1, 10, "a forbid sends no credential")],
    ),
    (
        "P19",
        "@id(\"a\") @credential(\"both\") \
         permit (principal, action, resource == Gateway::\"gateway\");",
        &[(1, 10, "takes no credential")],
    ),
    // A warning of the validator is a fault: this can never apply.
    (
        "P20",
        "@id(\"a\") permit (principal, action == Action::\"tools/call\", \
         resource == Server::\"github\");",
        &[(1, 1, "")],
    ),
    (
        "P21",
        "@id(\"a\") permit (principal, action == Action::\"tools/cal\", resource);",
        &[(1, 1, "applicable action"), (1, 39, "tools/cal")],
    ),
    ("P22", "@id(\"a\") permit (principal == ?principal, action, resource);", &[(1, 1, "")]),
    ("P23", "@id(\"\") permit (principal, action, resource);", &[(1, 1, "cannot be recorded")]),
    ("P24", "@id(\"a\") permit (principal, action, resource)", &[(1, 1, "never ends")]),
    (
        "P25",
        "@id(\"a\") permit (principal, action, resource);\n @id(\"b",
        &[(2, 6, "string never")],
    ),
    // An optional value without a look whether it is there.
    (
        "P26",
        "@id(\"a\") permit (principal, action, resource)\nwhen { context.acr == \"gold\" };",
        &[(2, 8, "acr")],
    ),
    (
        "P27",
        "@id(\"a\") permit (principal in User::\"a\", action, resource is Printer);",
        &[(1, 1, "applicable action"), (1, 62, "Printer")],
    ),
];

#[test]
fn each_fault_has_its_place() {
    for (case, text, expected) in TABLE {
        let faults = match compiled(text) {
            Ok(_) => panic!("{case} loads"),
            Err(faults) => faults,
        };
        let list: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let list = list.join("\n");
        assert_eq!(faults.len(), expected.len(), "{case}:\n{list}");
        for (fault, (line, column, what)) in faults.iter().zip(*expected) {
            let start = format!("p/a.cedar:{line}:");
            assert!(fault.to_string().starts_with(&start), "{case}:\n{list}");
            assert!(fault.what.contains(what), "{case}:\n{list}");
            if !what.is_empty() {
                assert_eq!(fault.column, *column, "{case}:\n{list}");
            }
            assert!(!fault.cure.is_empty() && !fault.what.contains('\n'), "{case}:\n{list}");
        }
    }
}

#[test]
fn all_faults_of_all_files_come_at_once() {
    let good = "@id(\"a\") permit (principal, action, resource);";
    let files = [
        ("p/a.cedar", format!("{good}\npermit (principal, action, resource);")),
        ("p/b.cedar", format!("{good}\n@id(\"c\") permit (nobody, action, resource);")),
    ];
    let sources = files.map(|(path, text)| Source { path: path.into(), text });
    let faults = PolicySet::compile(&sources, Path::new("p"), &setting(1)).err().unwrap();
    let places: Vec<String> =
        faults.iter().map(|fault| format!("{}:{}", fault.file.display(), fault.line)).collect();
    assert_eq!(places, ["p/a.cedar:2", "p/b.cedar:1", "p/b.cedar:2"]);
}

#[test]
fn settings_that_cannot_be_are_faults_of_the_directory() {
    let fault = |change: Setting<'_>| {
        let faults = PolicySet::compile(&[], Path::new("policies"), &change).err().unwrap();
        faults.first().unwrap().to_string()
    };
    let zone = fault(Setting { timezone: "Europe/Atlantis", ..setting(1) });
    assert!(zone.starts_with("policies:1:1:") && zone.contains("policy.timezone"), "{zone}");
    let method = fault(Setting { methods: &["tools/call"], ..setting(1) });
    assert!(method.contains("[[method]]"), "{method}");
    assert!(PolicySet::compile(&[], Path::new("p"), &setting(1)).unwrap().is_empty());
    // A name that would end the string in the schema stays a name.
    let quoted = Setting { methods: &["x\" in [\"use"], ..setting(1) };
    assert!(PolicySet::compile(&[], Path::new("p"), &quoted).is_ok());
}

#[test]
fn directories_are_read_in_order_and_strictly() {
    let root = std::env::temp_dir().join(format!("portcullis-policies-{}", std::process::id()));
    let write = |name: &str, text: &str| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let load = || PolicySet::load(&root, &setting(3)).map_err(|faults| faults[0].to_string());
    assert!(load().err().unwrap().contains("cannot be read"));
    write("README.md", "not a policy");
    assert!(load().err().unwrap().contains("there is no policy in it"));
    write("shadow/x.cedar", "@id(\"x\") permit (principal, action, resource);");
    assert!(load().err().unwrap().contains("there is no policy in it"), "shadows decide nothing");
    std::fs::remove_dir_all(root.join("shadow")).unwrap();
    write("b.cedar", "@id(\"b\") permit (principal, action, resource);");
    write("a.cedar", "@id(\"a\") permit (principal, action, resource);");
    write(".a.cedar.swp", "not a policy");
    write(".hidden.cedar", "not a policy");
    write("README.md", "not a policy");
    let set = load().unwrap();
    let verdict = decide(&set, &alice(), "tools/list", ("github", QTarget::Server));
    assert_eq!((named(&verdict), set.epoch(), set.len()), (vec!["a", "b"], 3, 2));
    write("shadow/x.cedar", "@id(\"x\") permit (principal, action, resource);");
    let both = load().unwrap();
    assert_eq!((both.len(), both.shadow_len()), (2, 1));
    let place = both.place("x").unwrap();
    assert!(place.shadow && place.permits && place.file.ends_with("shadow/x.cedar"));
    write("shadow/x.cedar", "\n@id(\"a\") permit (principal, action, resource);");
    let twice = load().err().unwrap();
    assert!(twice.contains("shadow/x.cedar:2:1: @id \"a\" is taken by the policy at"), "{twice}");
    std::fs::remove_dir_all(root.join("shadow")).unwrap();
    write("schema.d/x.cedarschema", "@tool(\"jira/x\") type X = {};");
    write("schema.d/x.cedar", "not a schema");
    assert!(load().is_ok());
    write("schema.d/x.cedarschema", "\ntype X = ;");
    let torn = load().err().unwrap();
    assert!(torn.contains("schema.d/x.cedarschema:2:10: error parsing schema"), "{torn}");
    std::fs::remove_dir_all(root.join("schema.d")).unwrap();
    std::fs::write(root.join("c.cedar"), [0xff, 0xfe]).unwrap();
    assert!(load().err().unwrap().contains("c.cedar:1:1:"));
    std::fs::remove_dir_all(&root).unwrap();
}

/// Deep and long forms on the small stack of a thread end in a fault; forms at the bounds load and
/// are decided. Without the bounds most of these overflow the stack, which would end the process.
#[test]
fn deep_forms_are_refused_and_those_at_the_bounds_load() {
    // The policy itself takes the braces of `when`, and the comparison of its action.
    let (nest, terms) = (limits::POLICY_NESTING_MAX, limits::POLICY_OPERATORS_MAX - 1);
    let open = |count: usize, with: &str, inner: &str, end: &str| {
        format!("{}{inner}{}", with.repeat(count), end.repeat(count))
    };
    let chain = |count: usize, term: &str, join: &str| vec![term; count].join(join);
    let table = [
        ("Q01", open(20_000, "(", "1 == 1", ")"), false),
        ("Q02", chain(8_000, "1==1", "||"), false),
        ("Q03", format!("{}1 == 1", "if 1==1 then true else ".repeat(2_000)), false),
        ("Q04", format!("1 < {}", chain(20_000, "1", "+")), false),
        ("Q05", open(20_000, "[", "1", "]"), false),
        ("Q06", open(5_000, "1==1&&(", "1 == 1", ")"), false),
        ("Q07", format!("context{} == 1", ".a".repeat(20_000)), false),
        ("Q08", open(nest, "(", "1 == 1", ")"), false),
        ("Q09", open(nest - 1, "(", "1 == 1", ")"), true),
        ("Q10", chain(terms / 2 + 2, "1==1", "||"), false),
        ("Q11", chain(terms / 2 + 1, "1==1", "||"), true),
        ("Q12", format!("1 < {}", chain(terms, "1", "+")), true),
        ("Q13", open(nest - 1, "(", &format!("1 < {}", chain(terms, "1", "+")), ")"), true),
        ("Q14", format!("[{}].contains(1)", chain(20_000, "1", ",")), true),
    ];
    for (case, form, loads) in table {
        let text = format!(
            "@id(\"a\") permit (principal, action == Action::\"tools/list\", resource) \
             when {{ {form} }};"
        );
        let small = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
        let answer = small.spawn(move || match compiled(&text) {
            Ok(set) => {
                let on = ("github", QTarget::Server);
                Ok(decide(&set, &alice(), "tools/list", on).error)
            }
            Err(faults) => Err(faults[0].to_string()),
        });
        let answer = answer.unwrap().join().unwrap();
        match answer {
            Ok(error) => assert!(loads && !error, "{case}"),
            Err(fault) => assert!(!loads && fault.contains("nested brackets"), "{case}: {fault}"),
        }
    }
}
