//! Random policies and who asks, for the differential test.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::Path;

use super::super::*;
use crate::address::Country;
use crate::judge::policy::tests::random::{
    ACTIONS, CONDITIONS, DECLARED, Dice, GIVEN, NOW, OF_ARGUMENTS, OF_COUNTRIES, PRINCIPALS,
    RESOURCES,
};
use crate::judge::policy::{CredentialScope, Setting, Source, Sources};

pub(super) const CREDENTIALS: [CredentialScope<'static>; 2] = [
    CredentialScope { name: "github-user", servers: &[0] },
    CredentialScope { name: "github-bot", servers: &[0] },
];

/// A policy in its parts.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) id: String,
    pub(super) shadow: bool,
    pub(super) permits: bool,
    pub(super) annotations: String,
    pub(super) head: String,
    pub(super) condition: &'static str,
}

impl Line {
    pub(super) fn new(dice: &mut Dice, number: usize) -> Self {
        let conditions = [CONDITIONS, OF_COUNTRIES, OF_ARGUMENTS].concat();
        let (permits, condition) = (dice.roll(4) != 0, dice.pick(&conditions));
        let on = dice.pick(RESOURCES);
        let head = format!("{}, {}, {on}", dice.pick(PRINCIPALS), dice.pick(ACTIONS));
        let mut annotations = String::new();
        if permits && on.contains("github") && dice.roll(3) != 0 {
            let name = dice.pick(&CREDENTIALS).name;
            let _ = write!(annotations, " @credential(\"{name}\")");
        }
        let steps = [
            ("scopes", "@require_scope(\"write\")"),
            ("acr", "@require_acr(\"gold\")"),
            ("auth_time", "@max_age(\"3600\")"),
        ];
        for (attribute, step) in steps {
            if !permits && looks_at(condition, attribute) && dice.roll(8) != 0 {
                let _ = write!(annotations, " {step}");
            }
        }
        let shadow = dice.roll(5) == 0;
        Self { id: format!("p{number}"), shadow, permits, annotations, head, condition }
    }

    pub(super) fn text(&self, condition: &str) -> String {
        let effect = if self.permits { "permit" } else { "forbid" };
        format!("@id(\"{}\"){} {effect} ({}) {condition};", self.id, self.annotations, self.head)
    }

    /// It looks at what only a call can tell.
    pub(super) fn at_call_time(&self) -> bool {
        let known = ["scopes", "acr", "auth_time", "arguments"];
        known.iter().any(|attribute| looks_at(self.condition, attribute))
    }

    pub(super) fn asks_for(&self, argument: &str) -> bool {
        self.condition.contains(&format!("has {argument}"))
    }
}

pub(super) fn looks_at(condition: &str, attribute: &str) -> bool {
    condition.contains(&format!("context.{attribute}"))
        || condition.contains(&format!("context has {attribute}"))
}

fn compile(
    before: Option<&PolicySet>,
    lines: &[Line],
    epoch: u64,
) -> Result<PolicySet, Vec<(bool, usize)>> {
    let file = |shadow: bool| {
        // Each policy in the line of its number, so that a fault says whose it is.
        let text = lines.iter().map(|line| match line.shadow == shadow {
            true => line.text(line.condition) + "\n",
            false => "\n".to_owned(),
        });
        Source { path: if shadow { "s" } else { "e" }.into(), text: text.collect() }
    };
    let sources = Sources {
        enforced: vec![file(false)],
        shadow: vec![file(true)],
        schemas: vec![Source { path: "d".into(), text: DECLARED.to_owned() }],
    };
    let setting = Setting {
        epoch,
        servers: &["github", "jira"],
        credentials: &CREDENTIALS,
        methods: &["com.example/thing"],
        timezone: "Europe/Berlin",
        geoip: true,
    };
    let set = PolicySet::compile_after(before, sources, Path::new("."), &setting, &mut || {});
    let place = |fault: &crate::judge::policy::Fault| {
        (fault.file == Path::new("s"), fault.line as usize - 1)
    };
    set.map_err(|faults| faults.iter().map(place).collect())
}

/// Leaves out what is a fault, such as a policy that can never apply.
pub(super) fn sound(before: Option<&PolicySet>, lines: &mut Vec<Line>, epoch: u64) -> PolicySet {
    loop {
        match compile(before, lines, epoch) {
            Ok(set) => return set,
            Err(faults) => {
                let bad: HashSet<usize> = faults.iter().map(|(_, line)| *line).collect();
                assert!(faults.iter().all(|(shadow, line)| lines[*line].shadow == *shadow));
                let mut at = 0..;
                lines.retain(|_| !bad.contains(&at.next().unwrap()));
            }
        }
    }
}

/// Who asks, and everything around it.
pub(super) struct Asker {
    pub(super) user: Option<&'static str>,
    pub(super) agent: &'static str,
    pub(super) groups: Vec<String>,
    pub(super) scopes: Vec<String>,
    pub(super) acr: Option<&'static str>,
    pub(super) auth_time: Option<u64>,
    pub(super) source_ip: &'static str,
    pub(super) country: Option<Country>,
    pub(super) revision: Option<&'static str>,
    pub(super) given: usize,
    pub(super) digest: [u8; 32],
}

impl Asker {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let some = |dice: &mut Dice, from: &[&str]| -> Vec<String> {
            let kept = from.iter().filter(|_| dice.roll(2) == 0);
            kept.map(|one| (*one).to_owned()).collect()
        };
        let (user, agent) = (
            dice.pick(&[Some("alice"), Some("bob"), Some("engineering"), None]),
            dice.pick(&["claude", "robot", "alice"]),
        );
        let groups = some(dice, &["engineering", "only-here", "ops", "unknown"]);
        // Equal for equal identities and for no others.
        let mut digest = [0_u8; 32];
        let name = format!("{user:?}{agent}{groups:?}");
        for (at, byte) in name.bytes().enumerate() {
            digest[at % 32] = digest[at % 32].rotate_left(3) ^ byte ^ (at as u8);
        }
        Self {
            user,
            agent,
            groups,
            scopes: some(dice, &["read", "write"]),
            acr: dice.pick(&[None, Some("gold"), Some("tin")]),
            auth_time: dice.pick(&[None, Some(NOW - 60), Some(NOW - 3_590), Some(NOW - 86_400)]),
            source_ip: dice.pick(&["10.1.2.3", "::ffff:10.1.2.3", "192.0.2.1", "2001:db8::1"]),
            country: dice.pick(&[None, Country::new("DE"), Country::new("FR")]),
            revision: dice.pick(&[None, Some("2025-11-25"), Some("2026-07-28")]),
            given: dice.roll(GIVEN.len()),
            digest,
        }
    }

    pub(super) fn subject(&self) -> Subject<'_> {
        Subject {
            user: self.user,
            agent: self.agent,
            groups: &self.groups,
            scopes: &self.scopes,
            acr: self.acr,
            auth_time: self.auth_time,
            digest: &self.digest,
        }
    }
}
