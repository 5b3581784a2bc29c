//! A policy with its scope compiled into numbers, and the names behind the numbers.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use cedar_policy::{EntityUid, Policy, PrincipalConstraint, ResourceConstraint};

use super::arguments::Named;
use super::mentions::Mentions;
use super::schema::kind;
use super::{StepUp, Subject};

/// A compiled policy in its place.
pub(super) struct Rule {
    pub(super) at: RulePlace,
    /// What its text alone makes of it; shared with the sets after this one, as long as the text
    /// stays.
    pub(super) core: Arc<Core>,
}

impl Deref for Rule {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

/// What the text of a policy says, wherever it is written.
pub(super) struct Core {
    pub(super) id: Arc<str>,
    pub(super) permits: bool,
    pub(super) who: Who,
    /// Numbers of the actions, sorted.
    pub(super) actions: Vec<u16>,
    pub(super) place: Place,
    pub(super) credential: Option<u16>,
    /// Of a forbid: what would lift it.
    pub(super) step_up: Option<StepUp>,
    pub(super) mentions: Mentions,
    pub(super) arguments: Vec<Named>,
    /// The whole statement as it is written.
    pub(super) text: Box<str>,
    /// Its condition alone in a set, for Cedar; `None` when the scope is all there is to it, which
    /// is matched here.
    pub(super) condition: Option<cedar_policy::PolicySet>,
}

/// Where a policy is written, and what kind it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulePlace {
    /// Its file.
    pub file: Arc<Path>,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// It never decides.
    pub shadow: bool,
    /// It permits; else it forbids.
    pub permits: bool,
}

/// A principal scope. User, agent and group stand as numbers of [`Names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Anyone,
    Users,
    Agents,
    User(u32),
    Agent(u32),
    Group(u32),
    Nobody,
}

impl Who {
    pub(super) fn matches(self, asker: &Asker) -> bool {
        match self {
            Self::Anyone => true,
            Self::Users => asker.is_user,
            Self::Agents => !asker.is_user,
            Self::User(id) => asker.user == Some(id),
            Self::Agent(id) => asker.agent == Some(id),
            Self::Group(id) => asker.groups.binary_search(&id).is_ok(),
            Self::Nobody => false,
        }
    }
}

/// A resource scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The one server it is bound to; `None` = all of them, and the gateway when `kinds` says so.
    pub(super) server: Option<u16>,
    /// Bits of [`kind`]; 0 = nothing at all.
    pub(super) kinds: u8,
    /// The one tool, prompt or resource; the name without its server.
    pub(super) name: Option<Box<str>>,
}

/// What a principal is, in numbers. A name that no policy knows has none.
pub(super) struct Asker {
    pub(super) is_user: bool,
    pub(super) user: Option<u32>,
    pub(super) agent: Option<u32>,
    /// Sorted.
    pub(super) groups: Vec<u32>,
}

/// Users, agents and groups that policies name.
#[derive(Clone, Default)]
pub(super) struct Names {
    users: HashMap<Box<str>, u32>,
    agents: HashMap<Box<str>, u32>,
    groups: HashMap<Box<str>, u32>,
}

impl Names {
    pub(super) fn len(&self) -> usize {
        self.users.len() + self.agents.len() + self.groups.len()
    }

    /// Remembers the groups that conditions name, besides those of scopes.
    pub(super) fn learn(&mut self, literal: &EntityUid) {
        if literal.type_name().basename() == "Group" {
            number(&mut self.groups, literal.id().unescaped());
        }
    }

    pub(super) fn asker(&self, subject: &Subject<'_>) -> Asker {
        let Some(user) = subject.user else {
            let agent = self.agents.get(subject.agent).copied();
            return Asker { is_user: false, user: None, agent, groups: Vec::new() };
        };
        let known = self.known_groups(subject);
        let mut groups: Vec<u32> = known.filter_map(|group| self.group(group)).collect();
        groups.sort_unstable();
        let user = self.users.get(user).copied();
        Asker { is_user: true, user, agent: None, groups }
    }

    /// The groups of a user (a workload has none) that any policy names; no policy can tell the
    /// others apart.
    pub(super) fn known_groups<'a>(
        &self,
        subject: &Subject<'a>,
    ) -> impl Iterator<Item = &'a str> + use<'a, '_> {
        subject.groups.iter().map(String::as_str).filter(|group| self.groups.contains_key(*group))
    }

    fn group(&self, name: &str) -> Option<u32> {
        self.groups.get(name).copied()
    }

    /// The principal scope of a policy.
    pub(super) fn who(&mut self, policy: &Policy) -> Who {
        match policy.principal_constraint() {
            PrincipalConstraint::Any => Who::Anyone,
            PrincipalConstraint::Eq(uid) | PrincipalConstraint::In(uid) => self.one(&uid, None),
            PrincipalConstraint::Is(entity_type) => match entity_type.basename() {
                "User" => Who::Users,
                "Agent" => Who::Agents,
                _ => Who::Nobody,
            },
            PrincipalConstraint::IsIn(entity_type, uid) => {
                self.one(&uid, Some(entity_type.basename()))
            }
        }
    }

    /// `uid`, or what is in it; `only` is the type that an `is` asks for besides.
    fn one(&mut self, uid: &EntityUid, only: Option<&str>) -> Who {
        let id = uid.id().unescaped();
        match (uid.type_name().basename(), only) {
            ("User", None | Some("User")) => Who::User(number(&mut self.users, id)),
            ("Agent", None | Some("Agent")) => Who::Agent(number(&mut self.agents, id)),
            ("Group", None | Some("User")) => Who::Group(number(&mut self.groups, id)),
            _ => Who::Nobody,
        }
    }
}

fn number(names: &mut HashMap<Box<str>, u32>, name: &str) -> u32 {
    if let Some(number) = names.get(name) {
        return *number;
    }
    let next = u32::try_from(names.len()).unwrap_or(u32::MAX);
    names.insert(Box::from(name), next);
    next
}

/// The resource scope of a policy; names of servers were checked before.
pub(super) fn place(policy: &Policy, servers: &[Box<str>]) -> Place {
    match policy.resource_constraint() {
        ResourceConstraint::Any => Place { server: None, kinds: kind::ALL, name: None },
        ResourceConstraint::Is(entity_type) => {
            Place { server: None, kinds: kind::of(entity_type.basename()), name: None }
        }
        ResourceConstraint::Eq(uid) => {
            let mut place = within(&uid, servers);
            place.kinds &= kind::of(uid.type_name().basename());
            place
        }
        ResourceConstraint::In(uid) => within(&uid, servers),
        ResourceConstraint::IsIn(entity_type, uid) => {
            let mut place = within(&uid, servers);
            place.kinds &= kind::of(entity_type.basename());
            place
        }
    }
}

/// `uid` and what is in it.
fn within(uid: &EntityUid, servers: &[Box<str>]) -> Place {
    let nowhere = Place { server: None, kinds: 0, name: None };
    let kind = kind::of(uid.type_name().basename());
    let id = uid.id().unescaped();
    if kind == kind::GATEWAY {
        return if id == GATEWAY { Place { kinds: kind, ..nowhere } } else { nowhere };
    }
    let (server, name) = match (kind, id.split_once('/')) {
        (kind::SERVER, _) => (id, None),
        (_, Some((server, name))) => (server, Some(Box::from(name))),
        (_, None) => return nowhere,
    };
    let at = servers.iter().position(|known| **known == *server);
    let Some(server) = at.and_then(|at| u16::try_from(at).ok()) else { return nowhere };
    let kinds = if kind == kind::SERVER { kind::IN_SERVER } else { kind };
    Place { server: Some(server), kinds, name }
}

/// Id of the one gateway entity.
pub(super) const GATEWAY: &str = "gateway";
