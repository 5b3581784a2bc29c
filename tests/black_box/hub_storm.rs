//! Many agents of two people at once at `/mcp`, while the servers behind it behave and misbehave by
//! a seed: each gets its own answer or an error, and nobody gets another's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::gateway::DRIVERS;
use super::hub_peer::{Role, Trouble};
use super::hub_rig::{Agent, Hub};
use super::table::assert_silent;

const THREE: [(&str, Role); 3] =
    [("dual", Role::Dual), ("new", Role::Modern), ("old", Role::Legacy)];
const CALLS_EACH: u64 = 200;

/// xorshift64*: the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    /// What a server does next; mostly it behaves.
    fn trouble(&mut self) -> Option<Trouble> {
        match self.below(24) {
            0 => Some(Trouble::Asks),
            1 => Some(Trouble::Body("{\"jsonrpc\":".to_owned())),
            2 => Some(Trouble::Hangup),
            3..=5 => Some(Trouble::Progress(3)),
            6 => Some(Trouble::Status(500)),
            7 => Some(Trouble::Twice),
            8 => Some(Trouble::WrongId),
            9..=10 => Some(Trouble::WrongIdFirst),
            _ => None,
        }
    }

    /// An id as clients may choose it, and as others choose it, too.
    fn id(&mut self) -> Value {
        let number = self.below(4);
        match self.below(4) {
            0 => json!(number),
            1 => json!(format!("{number}")),
            2 => json!(format!("c0.{number}")),
            _ => json!(format!("g\"\\\u{e9}{number}")),
        }
    }
}

#[test]
fn nobody_gets_anothers_answer() {
    let policies = "@id(\"ivan\") permit (principal == User::\"ivan\", action, resource) \
         when { resource in Server::\"dual\" || resource in Server::\"new\" || \
         resource in Server::\"old\" };\n";
    for driver in DRIVERS {
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
        let hub = Hub::start(driver, &THREE, "", policies);
        let mut agents = Vec::new();
        for user in ["hana", "ivan"] {
            for revision in ["2025-03-26", "2025-11-25"] {
                agents.push((user, hub.legacy(user, "/mcp", revision)));
            }
            agents.push((user, hub.modern(user, "/mcp")));
            agents.push((user, hub.modern(user, "/mcp")));
        }
        let answered = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for (number, (user, agent)) in agents.iter().enumerate() {
                let (hub, answered) = (&hub, &answered);
                let seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(number as u64));
                scope.spawn(move || storm(hub, agent, user, Dice(seed | 1), answered));
            }
        });
        let (answered, all) = (answered.into_inner(), agents.len() * CALLS_EACH as usize);
        assert!(answered * 4 > all, "seed {seed}: {answered} of {all}: too few to show anything");
        for (server, _) in THREE {
            assert_one_owner_each(&hub, server, seed);
        }
        assert!(hub.gateway.running(), "seed {seed}");
        assert_silent(&hub.gateway.everything_written(), "audit, logs and admin pages");
    }
}

fn storm(hub: &Hub, agent: &Agent<'_>, user: &str, mut dice: Dice, answered: &AtomicUsize) {
    let whose = format!("{user} {} {}", agent.revision, dice.0);
    for number in 0..CALLS_EACH {
        let (server, _) = THREE[dice.below(3) as usize];
        if dice.below(3) == 0 {
            hub.peer(server).trouble("tools/call", dice.trouble());
            let mut script = hub.peer(server).script();
            script.events = dice.below(2) == 0;
            script.piece = if dice.below(8) == 0 { 7 } else { 0 };
        }
        let (id, text) = (dice.id(), format!("{whose} {number}"));
        let params = json!({"name": format!("{server}_alpha"), "arguments": {"text": text},
            "_meta": {"progressToken": id}});
        let told = agent.ask_as(&id, "tools/call", params);
        for message in &told.messages {
            let token = &message["params"]["progressToken"];
            assert!(message["method"].is_null() || *token == id, "{whose}: {told:?}");
        }
        // Five failures in a row, and a server is left alone: then nothing is shown.
        let mut script = hub.peer(server).script();
        if script.troubles.get("tools/call").is_some_and(fails) {
            script.troubles.clear();
        }
        drop(script);
        let last = told.last();
        assert_eq!(last["id"], id, "{whose}: {told:?}");
        let result = &last["result"];
        assert_ne!(result.is_null(), last["error"].is_null(), "{whose}: one of the two: {told:?}");
        if !result.is_null() {
            let said = format!("{server} \"alpha\" {}", json!({"text": text}));
            assert_eq!(result["content"][0]["text"], said, "{whose}: {told:?}");
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn fails(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Body(_) | Trouble::Hangup | Trouble::Status(_) | Trouble::WrongId)
}

/// Each session with a server carried the requests of one person.
fn assert_one_owner_each(hub: &Hub, server: &str, seed: u64) {
    let mut owners = BTreeMap::<String, BTreeSet<String>>::new();
    for heard in hub.peer(server).heard("tools/call") {
        let text = heard.message["params"]["arguments"]["text"].as_str().unwrap().to_owned();
        let user = text.split(' ').next().unwrap().to_owned();
        if let Some(session) = heard.header("mcp-session-id") {
            owners.entry(session.to_owned()).or_default().insert(user);
        }
    }
    assert_eq!(owners.is_empty(), server == "new", "seed {seed}: {server}");
    let shared: Vec<_> = owners.iter().filter(|(_, users)| users.len() != 1).collect();
    assert!(shared.is_empty(), "seed {seed}: {server}: {shared:?}");
}
