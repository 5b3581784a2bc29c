//! A set that is compiled after another one is what it would be alone.

use super::differential::{people, policies};
use super::random::{Dice, QUESTIONS};
use super::*;

const TYPES: [&str; 3] = [
    "",
    "@tool(\"github/get\") type A = { path: String, count: Long };",
    "@tool(\"github/get\") @complete(\"jira\") type A = { path: String };",
];
const ON_ARGUMENTS: &str = "permit (principal, action, resource) when { \
     context.arguments has \"github/get\" && context.arguments[\"github/get\"] has path && \
     context.arguments[\"github/get\"].path == \"x\" };";

/// A folder under edit: the lines of three files, two that decide and one of shadows.
struct Folder {
    files: [Vec<String>; 3],
    types: &'static str,
    geoip: bool,
    methods: &'static [&'static str],
    fresh: usize,
}

impl Folder {
    fn edit(&mut self, dice: &mut Dice) {
        let file = dice.roll(3);
        let lines = self.files[file].len();
        match dice.roll(9) {
            0 | 1 if lines > 0 => {
                let at = dice.roll(lines);
                let line = self.files[file].remove(at);
                // Moved, or gone.
                if dice.roll(2) == 0 {
                    self.files[dice.roll(3)].push(line);
                }
            }
            2 if lines > 1 => self.files[file].swap(0, lines - 1),
            3 => self.files[file].insert(0, "// a comment moves the lines".to_owned()),
            4 => self.types = TYPES[dice.roll(3)],
            5 if dice.roll(3) == 0 => self.geoip = !self.geoip,
            6 if dice.roll(3) == 0 => {
                self.methods =
                    [&["com.example/thing"][..], &["com.example/thing", "a/b"]][dice.roll(2)];
            }
            7 => {
                self.fresh += 1;
                let policy = format!("@id(\"n{}\") {ON_ARGUMENTS}", self.fresh);
                self.files[file].push(policy);
            }
            _ => {
                for line in policies(dice, 3) {
                    self.fresh += 1;
                    let own = format!("@id(\"n{}\")", self.fresh);
                    let body = line.split_once(')').unwrap().1.to_owned();
                    self.files[file].push(own + &body);
                }
            }
        }
    }

    fn compile(&self, before: Option<&PolicySet>, epoch: u64) -> Result<PolicySet, Vec<Fault>> {
        let source = |path: &str, text: String| Source { path: path.into(), text };
        let sources = Sources {
            enforced: vec![
                source("p/a.cedar", self.files[0].join("\n")),
                source("p/b.cedar", self.files[1].join("\n")),
            ],
            shadow: vec![source("p/shadow/a.cedar", self.files[2].join("\n"))],
            schemas: vec![source("p/schema.d/a.cedarschema", self.types.to_owned())],
        };
        let setting = Setting { geoip: self.geoip, methods: self.methods, ..setting(epoch) };
        PolicySet::compile_after(before, sources, Path::new("p"), &setting, &mut || {})
    }
}

/// Everything that can be asked of a set.
fn told(set: &PolicySet, askers: &[Who]) -> Vec<String> {
    let mut told = vec![format!("{} {} {}", set.len(), set.shadow_len(), set.reads_country())];
    told.push(format!("{:?} {:?}", set.warnings(), set.plan(0, "get")));
    told.push(format!("{} {}", set.mark(0), set.mark(1)));
    for who in askers {
        let (subject, context) = (who.subject(), context());
        told.push(format!("{:?}", [0, 1].map(|server| set.server_visible(&subject, server))));
        for (action, server, target) in QUESTIONS {
            let question = Question {
                subject: &subject,
                action,
                server: *server,
                target: *target,
                context: &context,
                mode: Mode::Call,
            };
            let shown = set.decide(&Question { mode: Mode::List, ..question });
            told.push(format!("{:?} {shown:?} {:?}", set.decide(&question), set.trace(&question)));
        }
    }
    told
}

#[test]
fn a_set_after_another_is_what_it_would_be_alone() {
    let (mut compiled, mut refused) = (0, 0);
    for seed in 1..=6_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut folder = Folder {
            files: [policies(&mut dice, 10), Vec::new(), Vec::new()],
            types: TYPES[1],
            geoip: false,
            methods: &["com.example/thing"],
            fresh: 0,
        };
        let mut last: Option<PolicySet> = None;
        for epoch in 1..=20 {
            (0..=dice.roll(2)).for_each(|_| folder.edit(&mut dice));
            let (after, alone) =
                (folder.compile(last.as_ref(), epoch), folder.compile(None, epoch));
            match (after, alone) {
                (Ok(after), Ok(alone)) => {
                    let askers = [people(&mut dice), people(&mut dice), people(&mut dice)];
                    let note = format!("seed {seed}, epoch {epoch}");
                    assert_eq!(told(&after, &askers), told(&alone, &askers), "{note}");
                    assert_eq!(after.epoch(), epoch);
                    compiled += 1;
                    last = Some(after);
                }
                (Err(after), Err(alone)) => {
                    assert_eq!(after, alone, "seed {seed}, epoch {epoch}");
                    refused += 1;
                    // As the operator would: back to what was good.
                    folder.types = TYPES[1];
                    folder.files[2].retain(|line| !line.contains("arguments"));
                }
                (after, alone) => {
                    panic!("seed {seed}, epoch {epoch}: {:?} {:?}", after.err(), alone.err())
                }
            }
        }
    }
    println!("{compiled} compiled, {refused} refused");
    assert!(compiled > 60 && refused > 3);
}

#[test]
fn what_stays_is_taken_over_and_what_may_decide_has_a_mark() {
    let folder = |text: &str| Folder {
        files: [vec![text.to_owned()], Vec::new(), Vec::new()],
        types: "",
        geoip: false,
        methods: &[],
        fresh: 0,
    };
    let github =
        "@id(\"a\") permit (principal in Group::\"x\", action, resource in Server::\"github\");";
    let jira =
        "@id(\"b\") permit (principal in Group::\"y\", action, resource in Server::\"jira\");";
    let both = "@id(\"c\") permit (principal, action, resource);";
    let first = folder(github).compile(None, 1).unwrap();
    let second = folder(&format!("{jira}\n{github}")).compile(Some(&first), 2).unwrap();
    assert!(Arc::ptr_eq(&first.rules[0].core, &second.rules[1].core));
    assert_eq!((second.place("a").unwrap().line, first.place("a").unwrap().line), (2, 1));
    assert_eq!(first.mark(0), second.mark(0));
    assert_ne!(first.mark(1), second.mark(1));
    let third = folder(&format!("{jira}\n{github}{both}")).compile(Some(&second), 3).unwrap();
    assert!(third.mark(0) != second.mark(0) && third.mark(1) != second.mark(1));
    // Under another setting nothing is taken over.
    let other = Folder { geoip: true, ..folder(github) }.compile(Some(&first), 4).unwrap();
    assert!(!Arc::ptr_eq(&first.rules[0].core, &other.rules[0].core));
    let mut pauses = 0;
    let sources = Sources {
        enforced: vec![Source { path: "p/a.cedar".into(), text: format!("{jira}\n{github}") }],
        ..Sources::default()
    };
    let pause = &mut || pauses += 1;
    let set = PolicySet::compile_after(None, sources, Path::new("p"), &setting(5), pause);
    assert!(set.is_ok() && pauses >= 2);
}
