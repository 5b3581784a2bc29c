//! Slices: which policies could apply to a server, an action and a resource.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::mentions::Mentions;
use super::rule::{Asker, Rule, Who};
use super::schema::{Actions, kind};
use super::{PolicySet, QTarget, Question};

/// The policies that could apply to one question, principals not yet matched.
#[derive(Clone, Copy)]
pub struct Slice<'s> {
    pub(super) action: u16,
    pub(super) kind: u8,
    pub(super) server: Option<u16>,
    /// Every server, this server, this very resource.
    pub(super) buckets: [Option<&'s Bucket>; 3],
    /// What those look at that decide.
    pub(super) mentions: Mentions,
    /// What shadows look at: kept apart, so that nothing of it can deny.
    pub(super) to_shadows: Mentions,
}

/// Policies of one cell of the index, in the order of the files.
#[derive(Default)]
pub(super) struct Bucket {
    pub(super) permits: Vec<u32>,
    pub(super) forbids: Vec<u32>,
    /// Permits and forbids that never decide.
    pub(super) shadows: Vec<u32>,
    mentions: Mentions,
    to_shadows: Mentions,
}

/// Finds slices.
pub(super) struct Index {
    /// Policies that are bound to no server.
    everywhere: OfServer,
    servers: Vec<OfServer>,
}

#[derive(Default)]
struct OfServer {
    /// Policies for the server or all of one kind in it, by action.
    wide: Vec<Bucket>,
    /// Policies for one tool, prompt or resource, by its name.
    exact: HashMap<Box<str>, Bucket>,
    /// Permits of one resource each.
    resources: Vec<u32>,
    /// Principal scopes of permits.
    seen_by: HashSet<Who>,
    /// Principal scopes of unconditional forbids that cover the whole server.
    barred: HashSet<Who>,
    /// Changes with the text, number or order of what decides here.
    mark: u64,
}

impl Slice<'_> {
    /// Whether two things of one kind may be judged differently by their names: a policy is for
    /// this very one, or a condition looks at it.
    pub(super) fn tells_names_apart(&self) -> bool {
        let [.., exact] = self.buckets;
        exact.is_some() || self.mentions.has(Mentions::RESOURCE)
    }

    /// Whether the whole scope of `rule` matches; `name` is the tool, prompt or resource asked for.
    pub(super) fn fits(&self, rule: &Rule, asker: &Asker, name: Option<&str>) -> bool {
        rule.who.matches(asker)
            && rule.place.kinds & self.kind != 0
            && rule.place.server.is_none_or(|server| Some(server) == self.server)
            && rule.place.name.as_deref().is_none_or(|only| Some(only) == name)
            && rule.actions.binary_search(&self.action).is_ok()
    }
}

impl Index {
    /// `pause` is called often.
    pub(super) fn new(
        rules: &[Rule],
        actions: &Actions,
        servers: usize,
        pause: &mut dyn FnMut(),
    ) -> Self {
        let empty = || OfServer {
            wide: (0..actions.len()).map(|_| Bucket::default()).collect(),
            ..OfServer::default()
        };
        let mut index =
            Self { everywhere: empty(), servers: (0..servers).map(|_| empty()).collect() };
        let connect = actions.number(CONNECT);
        let whole = actions.len().saturating_sub(1);
        for (at, rule) in rules.iter().enumerate() {
            if at % RULES_AT_ONCE == 0 {
                pause();
            }
            let Ok(at) = u32::try_from(at) else { continue };
            let Some(place) = index.place(rule.place.server) else { continue };
            place.file(at, rule);
            let served = |action: &&u16| Some(**action) != connect;
            place.note_visibility(rule, rule.actions.iter().filter(served).count(), whole);
            place.note_mark(rule);
        }
        index
    }

    fn place(&mut self, server: Option<u16>) -> Option<&mut OfServer> {
        match server {
            None => Some(&mut self.everywhere),
            Some(server) => self.servers.get_mut(usize::from(server)),
        }
    }

    pub(super) fn visible(&self, server: u16, asker: &Asker) -> bool {
        let all = &self.everywhere;
        self.servers.get(usize::from(server)).is_some_and(|one| {
            (covers(&one.seen_by, asker) || covers(&all.seen_by, asker))
                && !covers(&one.barred, asker)
                && !covers(&all.barred, asker)
        })
    }

    fn mark(&self, server: u16) -> u64 {
        let mut hasher = DefaultHasher::new();
        let of_server = self.servers.get(usize::from(server));
        (self.everywhere.mark, of_server.map(|one| one.mark)).hash(&mut hasher);
        hasher.finish()
    }
}

impl OfServer {
    fn file(&mut self, at: u32, rule: &Rule) {
        if let Some(name) = &rule.place.name {
            if rule.permits && !rule.at.shadow && rule.place.kinds & kind::RESOURCE != 0 {
                self.resources.push(at);
            }
            self.exact.entry(name.clone()).or_default().add(at, rule);
            return;
        }
        for action in &rule.actions {
            if let Some(bucket) = self.wide.get_mut(usize::from(*action)) {
                bucket.add(at, rule);
            }
        }
    }

    fn note_visibility(&mut self, rule: &Rule, served: usize, whole: usize) {
        let place = &rule.place;
        if rule.at.shadow || served == 0 || place.kinds & kind::IN_SERVER == 0 {
            return;
        }
        let all_kinds = place.kinds & kind::IN_SERVER == kind::IN_SERVER;
        let takes_all = all_kinds && place.name.is_none() && served == whole;
        if rule.permits {
            self.seen_by.insert(rule.who);
        } else if takes_all && rule.condition.is_none() {
            self.barred.insert(rule.who);
        }
    }

    fn note_mark(&mut self, rule: &Rule) {
        if !rule.at.shadow {
            let mut hasher = DefaultHasher::new();
            (self.mark, &rule.text).hash(&mut hasher);
            self.mark = hasher.finish();
        }
    }
}

fn covers(scopes: &HashSet<Who>, asker: &Asker) -> bool {
    let one = |who: Option<Who>| who.is_some_and(|who| scopes.contains(&who));
    let kind = if asker.is_user { Who::Users } else { Who::Agents };
    one(Some(Who::Anyone))
        || one(Some(kind))
        || one(asker.user.map(Who::User))
        || one(asker.agent.map(Who::Agent))
        || asker.groups.iter().any(|group| one(Some(Who::Group(*group))))
}

impl Bucket {
    fn add(&mut self, at: u32, rule: &Rule) {
        let list = match (rule.at.shadow, rule.permits) {
            (true, _) => &mut self.shadows,
            (false, true) => &mut self.permits,
            (false, false) => &mut self.forbids,
        };
        list.push(at);
        let read = if rule.at.shadow { &mut self.to_shadows } else { &mut self.mentions };
        *read = read.and(rule.mentions);
    }
}

impl PolicySet {
    /// Numbers of the permits of the slice's server that are about one resource each.
    pub(super) fn resources(&self, slice: &Slice<'_>) -> &[u32] {
        let of_server = slice.server.and_then(|at| self.index.servers.get(usize::from(at)));
        of_server.map_or(&[], |one| &one.resources)
    }

    /// Equal for two sets when the same policies, in the same order, may decide in `server`.
    #[must_use]
    pub fn mark(&self, server: u16) -> u64 {
        self.index.mark(server)
    }

    /// The slice of a question. `None` when nothing could ever apply to it: an action that the
    /// schema does not know, or a server that is not the one this set was checked against.
    #[must_use]
    pub fn slice(&self, question: &Question<'_>) -> Option<Slice<'_>> {
        let action = self.actions.number(question.action)?;
        let (kind, name) = match question.target {
            QTarget::Gateway => (kind::GATEWAY, None),
            QTarget::Server => (kind::SERVER, None),
            QTarget::Tool(name) => (kind::TOOL, Some(name)),
            QTarget::Prompt(name) => (kind::PROMPT, Some(name)),
            QTarget::Resource(uri) => (kind::RESOURCE, Some(uri)),
        };
        let mut server = None;
        let mut buckets = [self.index.everywhere.wide.get(usize::from(action)), None, None];
        if kind != kind::GATEWAY {
            // An index of another configuration must not be judged by this one's names.
            let (at, called) = question.server?;
            if self.basis.servers.get(usize::from(at)).is_none_or(|known| **known != *called) {
                return None;
            }
            let of_server = self.index.servers.get(usize::from(at))?;
            let exact = name.and_then(|name| of_server.exact.get(name));
            buckets = [buckets.first().copied()?, of_server.wide.get(usize::from(action)), exact];
            server = Some(at);
        }
        let (mut mentions, mut to_shadows) = (Mentions::NONE, Mentions::NONE);
        for bucket in buckets.iter().flatten() {
            mentions = mentions.and(bucket.mentions);
            to_shadows = to_shadows.and(bucket.to_shadows);
        }
        Some(Slice { action, kind, server, buckets, mentions, to_shadows })
    }
}

/// Policies that are filed between two pauses.
const RULES_AT_ONCE: usize = 64;

/// The action that every request is judged by first.
pub(super) const CONNECT: &str = "connect";
