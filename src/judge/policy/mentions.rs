//! Which parts of `context` a policy reads. Only those are built for Cedar, and only those are in
//! the key of a cached decision. Besides, which of the entities it looks at.

use cedar_policy::pst;

use super::arguments::Named;

/// A set of context attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mentions(u32);

impl Mentions {
    pub(super) const NONE: Self = Self(0);
    pub(super) const AGENT: Self = Self(1);
    pub(super) const SCOPES: Self = Self(2);
    pub(super) const ACR: Self = Self(4);
    pub(super) const AUTH_TIME: Self = Self(8);
    pub(super) const SOURCE: Self = Self(16);
    pub(super) const NOW: Self = Self(32);
    pub(super) const WEEKDAY: Self = Self(64);
    pub(super) const MINUTE: Self = Self(128);
    pub(super) const REVISION: Self = Self(256);
    pub(super) const LOCAL: Self = Self(64 | 128);
    pub(super) const COUNTRY: Self = Self(512);
    pub(super) const ARGUMENTS: Self = Self(1024);
    /// The resource itself, whose name is in the key of every call, and of what is listed where
    /// names matter.
    pub(super) const RESOURCE: Self = Self(2048);
    /// Who asks, and what is done: both are in every key, too.
    pub(super) const PRINCIPAL: Self = Self(4096);
    pub(super) const ACTION: Self = Self(8192);
    pub(super) const ALL: Self = Self(16_383);
    /// What only a call can tell, and a list cannot (DESIGN §6).
    pub(super) const CALL_TIME: Self = Self(2 | 4 | 8 | 1024);

    pub(super) fn has(self, some: Self) -> bool {
        self.0 & some.0 != 0
    }

    pub(super) fn and(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    pub(super) fn without(self, less: Self) -> Self {
        Self(self.0 & !less.0)
    }
}

/// What a policy reads.
#[derive(Default)]
pub(super) struct Read {
    pub(super) mentions: Mentions,
    /// What is asked for of a tool's arguments.
    pub(super) arguments: Vec<Named>,
    /// `context` is used as a whole, so that nobody can tell what is read of it.
    pub(super) whole: bool,
    /// The country is asked for by its name.
    pub(super) country: bool,
}

/// Walks over the conditions of a policy.
pub(super) fn read(policy: &pst::Policy) -> Read {
    let mut read = Read::default();
    for clause in policy.body().clauses() {
        match clause {
            pst::Clause::When(expr) | pst::Clause::Unless(expr) => walk(expr, &mut read),
        }
    }
    read
}

fn walk(expr: &pst::Expr, read: &mut Read) {
    if let Some(path) = context_path(expr) {
        note(&path, matches!(expr, pst::Expr::HasAttr { .. }), read);
        return;
    }
    match expr {
        pst::Expr::Var(var) => {
            let mention = match var {
                pst::Var::Principal => Mentions::PRINCIPAL,
                pst::Var::Action => Mentions::ACTION,
                pst::Var::Resource => Mentions::RESOURCE,
                pst::Var::Context => Mentions::ALL,
            };
            read.mentions = read.mentions.and(mention);
        }
        pst::Expr::Literal(_) | pst::Expr::Slot(_) => {}
        pst::Expr::UnaryOp { expr, .. }
        | pst::Expr::GetAttr { expr, .. }
        | pst::Expr::HasAttr { expr, .. }
        | pst::Expr::Like { expr, .. } => walk(expr, read),
        pst::Expr::BinaryOp { left, right, .. } => {
            walk(left, read);
            walk(right, read);
        }
        pst::Expr::Is { expr, in_expr, .. } => {
            walk(expr, read);
            if let Some(above) = in_expr {
                walk(above, read);
            }
        }
        pst::Expr::IfThenElse { cond, then_expr, else_expr } => {
            walk(cond, read);
            walk(then_expr, read);
            walk(else_expr, read);
        }
        pst::Expr::Set(members) => members.iter().for_each(|member| walk(member, read)),
        pst::Expr::Record(fields) => fields.values().for_each(|field| walk(field, read)),
        // A form that we do not know may read anything.
        pst::Expr::Unknown { .. } | _ => read.mentions = Mentions::ALL,
    }
}

/// The attributes along `context.a.b`; empty for `context` alone; `None` for anything else.
fn context_path(expr: &pst::Expr) -> Option<Vec<&str>> {
    if let pst::Expr::Var(pst::Var::Context) = expr {
        return Some(Vec::new());
    }
    if let pst::Expr::GetAttr { expr, attr } = expr {
        let mut path = context_path(expr)?;
        path.push(attr.as_str());
        return Some(path);
    }
    if let pst::Expr::HasAttr { expr, attrs } = expr {
        let mut path = context_path(expr)?;
        path.extend(attrs.iter().map(|attr| attr.as_str()));
        return Some(path);
    }
    None
}

/// `has`: asked is whether it is there.
fn note(path: &[&str], has: bool, read: &mut Read) {
    let mention = match path {
        ["agent", ..] => Mentions::AGENT,
        ["scopes", ..] => Mentions::SCOPES,
        ["acr", ..] => Mentions::ACR,
        ["auth_time", ..] => Mentions::AUTH_TIME,
        ["source", "country", ..] => {
            read.country = true;
            Mentions::COUNTRY
        }
        ["source", "ip", ..] => Mentions::SOURCE,
        ["source", ..] => Mentions::SOURCE.and(Mentions::COUNTRY),
        ["now", ..] => Mentions::NOW,
        ["local", "weekday"] => Mentions::WEEKDAY,
        ["local", "minute_of_day"] => Mentions::MINUTE,
        ["local", ..] => Mentions::LOCAL,
        ["revision", ..] => Mentions::REVISION,
        ["arguments", path @ ..] => {
            let path = path.iter().map(|name| Box::from(*name)).collect();
            read.arguments.push(Named { path, has });
            Mentions::ARGUMENTS
        }
        [] => {
            read.whole = true;
            Mentions::ALL
        }
        // An attribute that the validator will refuse.
        _ => Mentions::ALL,
    };
    read.mentions = read.mentions.and(mention);
}
