//! Arguments of tools: what `schema.d` declares of them, and what policies ask for.
//!
//! A file of `schema.d` holds types in Cedar's schema language. `@tool("server/tool")` on a record
//! type says that it is what the tool takes; `@complete("server")` on any type says that the types
//! of this server are all its tools. Policies see the arguments as
//! `context.arguments["server/tool"].name`, and only what one of them names is read out of a
//! message.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{EntityId, SchemaFragment};
use serde_json::{Map, Value};

use super::load::{Faults, Source, Sources};
use super::rule::Rule;
use super::scanner::{Statements, Torn};
use crate::limits::{ARGUMENT_DEPTH_MAX, PLAN_FIELDS_MAX};
use crate::mcp::{Field, Plan, Shape};

/// What is declared of tools, by server.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Declared {
    servers: Vec<OfServer>,
    /// What was read.
    texts: Vec<String>,
}

#[derive(Clone, Default, PartialEq, Eq)]
struct OfServer {
    tools: BTreeMap<Box<str>, Vec<Field>>,
    /// There are no others.
    complete: bool,
}

/// An attribute under `context.arguments` that a policy names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// The tool with its server, the argument, members of it.
    pub(super) path: Vec<Box<str>>,
    /// Asked is whether it is there, not its value.
    pub(super) has: bool,
}

/// Plans of one server's tools.
pub(super) type Plans = hashbrown::HashMap<Box<str>, Plan>;

impl Declared {
    /// Reads `sources`; what is wrong with them goes to `faults`. `pause` is called between types.
    pub(super) fn read(
        sources: &[Source],
        servers: &[&str],
        faults: &mut Faults,
        pause: &mut dyn FnMut(),
    ) -> Self {
        let mut declared = Self {
            servers: servers.iter().map(|_| OfServer::default()).collect(),
            texts: sources.iter().map(|source| source.text.clone()).collect(),
        };
        for source in sources {
            declared.file(source, servers, faults, pause);
        }
        declared
    }

    /// Whether this is what `sources` say, for the same servers.
    pub(super) fn is_of(&self, sources: &[Source]) -> bool {
        self.texts.iter().eq(sources.iter().map(|source| &source.text))
    }

    /// Type by type: Cedar takes seconds for thousands of them in one text.
    fn file(
        &mut self,
        source: &Source,
        servers: &[&str],
        faults: &mut Faults,
        pause: &mut dyn FnMut(),
    ) {
        let (mut types, mut places) = (Map::new(), BTreeMap::new());
        let mut statements = Statements::new(&source.text);
        for statement in statements.by_ref() {
            pause();
            let at = statement.offset;
            let read = match SchemaFragment::from_cedarschema_str(statement.text) {
                Ok((fragment, _)) => fragment.to_json_value().map_err(|error| error.to_string()),
                Err(error) => {
                    let error = DetailedError::from(&error);
                    let label = error.source_locations.first();
                    let at = at + label.map_or(0, |label| label.loc.start);
                    faults.tell(source, at, &error.message, "write types alone, in Cedar's syntax");
                    continue;
                }
            };
            match read.and_then(types_of) {
                Ok(found) => {
                    for (name, of_tool) in found {
                        let at = statement.word("type");
                        places.insert(name.clone(), at);
                        if types.insert(name, of_tool).is_some() {
                            faults.tell(source, at, "a type of this name is there", "rename it");
                        }
                    }
                }
                Err(what) => faults.tell(source, at, &what, "leave only types in the file"),
            }
        }
        if let Some(Torn::String(at) | Torn::Statement(at)) = statements.torn {
            faults.tell(source, at, "this never ends", "end it with a semicolon");
        }
        for (name, of_tool) in &types {
            if let Err((what, cure)) = self.one(of_tool, &types, servers) {
                let at = places.get(name).copied().unwrap_or_default();
                faults.tell(source, at, &format!("type {name}: {what}"), &cure);
            }
        }
    }

    /// One type, if it is that of a tool. The error: what is wrong, and what to do.
    fn one(
        &mut self,
        found: &Value,
        types: &Map<String, Value>,
        servers: &[&str],
    ) -> Result<(), (String, String)> {
        let note = |name: &str| {
            let value = found.get("annotations")?.get(name)?;
            Some(value.as_str().unwrap_or_default().to_owned())
        };
        let known = || format!("servers: {}", servers.join(", "));
        let number = |name: &str| servers.iter().position(|server| *server == name);
        if let Some(server) = note("complete") {
            let place = number(&server).and_then(|at| self.servers.get_mut(at));
            let place = place
                .ok_or_else(|| (format!("@complete: there is no server \"{server}\""), known()))?;
            place.complete = true;
        }
        let Some(tool) = note("tool") else { return Ok(()) };
        let named = tool.split_once('/').filter(|(_, tool)| !tool.is_empty());
        let place = named.and_then(|(server, name)| Some((number(server)?, name)));
        let Some((place, name)) =
            place.and_then(|(at, name)| Some((self.servers.get_mut(at)?, name)))
        else {
            let what = format!("@tool(\"{tool}\") does not name a tool of a server");
            return Err((what, format!("write @tool(\"<server>/<tool>\"); {}", known())));
        };
        let Shape::Record(fields) = shape(found, types, ARGUMENT_DEPTH_MAX)? else {
            let cure = "write a record, `{ \"name\": String }`".to_owned();
            return Err(("the arguments of a tool are a record".to_owned(), cure));
        };
        if place.tools.insert(Box::from(name), fields).is_some() {
            let what = format!("tool \"{tool}\" has two types");
            return Err((what, "leave one of them".to_owned()));
        }
        Ok(())
    }

    /// The type of `context.arguments`, with the tools of `asked` alone: a schema of thousands
    /// takes seconds. Whatever the upstream promises, each part may be missing from a message.
    pub(super) fn cedar_type(&self, servers: &[&str], asked: &HashSet<String>) -> String {
        let mut text = String::from("{");
        for (server, of_server) in servers.iter().zip(&self.servers) {
            for (tool, fields) in &of_server.tools {
                let name = format!("{server}/{tool}");
                if !asked.contains(&name) {
                    continue;
                }
                let name = EntityId::new(name);
                // Writing into a String cannot fail.
                let _ = write!(text, "\"{}\"?: ", name.escaped());
                record(fields, &mut text);
                text.push_str(", ");
            }
        }
        text.push('}');
        text
    }

    /// The declared tools that `sources` may ask for arguments of, by their text alone. `pause` is
    /// called between policies.
    pub(super) fn asked(
        &self,
        sources: &Sources,
        servers: &[&str],
        pause: &mut dyn FnMut(),
    ) -> HashSet<String> {
        let mut asked = HashSet::new();
        for source in sources.enforced.iter().chain(&sources.shadow) {
            for statement in Statements::new(&source.text) {
                pause();
                if statement.text.contains("arguments") {
                    let known = |id: &&str| self.tool(id, servers).is_some();
                    asked.extend(statement.strings().filter(known).map(str::to_owned));
                }
            }
        }
        asked
    }

    /// Whether `tool` may exist.
    pub(super) fn may_exist(&self, server: usize, tool: &str) -> bool {
        let of_server = self.servers.get(server);
        of_server.is_none_or(|known| !known.complete || known.tools.contains_key(tool))
    }

    /// Whether a policy may ask for `named`. The error: what is wrong, and what to do.
    pub(super) fn check(&self, named: &Named, servers: &[&str]) -> Result<(), (String, String)> {
        let whole = |what: &str| {
            let what = format!("{what} as a whole");
            Err((what, "name the arguments, and of a record its members".to_owned()))
        };
        let [tool, path @ ..] = named.path.as_slice() else {
            return if named.has { Ok(()) } else { whole("`context.arguments`") };
        };
        let Some(mut fields) = self.tool(tool, servers) else {
            let what = format!("the arguments of tool \"{tool}\" are not declared");
            let cure = format!("give a type @tool(\"{tool}\") in schema.d/*.cedarschema");
            return Err((what, cure));
        };
        let mut last = None;
        for name in path {
            let Some(field) = fields.iter().find(|field| field.name == *name) else {
                let what = format!("\"{name}\" is not declared of tool \"{tool}\"");
                let names: Vec<&str> = fields.iter().map(|field| &*field.name).collect();
                return Err((what, format!("declared are: {}", names.join(", "))));
            };
            let members: &[Field] = match &field.shape {
                Shape::Record(members) => members,
                Shape::Bool | Shape::Long | Shape::Text | Shape::Set(_) => &[],
            };
            (fields, last) = (members, Some(&field.shape));
        }
        let is_record = last.is_none_or(|shape| matches!(shape, Shape::Record(_)));
        if is_record && !named.has { whole("a record of arguments") } else { Ok(()) }
    }

    fn tool(&self, id: &str, servers: &[&str]) -> Option<&[Field]> {
        let (server, tool) = id.split_once('/')?;
        let at = servers.iter().position(|known| *known == server)?;
        self.servers.get(at)?.tools.get(tool).map(Vec::as_slice)
    }

    /// What of the declared arguments `rules` ask for, by server. The error: a rule that asks for
    /// one too many.
    pub(super) fn plans(&self, rules: &[Rule], servers: &[&str]) -> Result<Vec<Plans>, usize> {
        let mut plans: Vec<Plans> = servers.iter().map(|_| Plans::new()).collect();
        for (at, rule) in rules.iter().enumerate() {
            for named in &rule.arguments {
                let Some((id, path)) = named.path.split_first() else { continue };
                let (Some(declared), Some((server, tool))) =
                    (self.tool(id, servers), id.split_once('/'))
                else {
                    continue;
                };
                let server = servers.iter().position(|known| *known == server);
                let Some(of_server) = server.and_then(|at| plans.get_mut(at)) else { continue };
                let plan = of_server.entry(Box::from(tool)).or_default();
                plan.decides |= !rule.at.shadow;
                if !ask(&mut plan.fields, declared, path, !rule.at.shadow) {
                    return Err(at);
                }
            }
        }
        Ok(plans)
    }
}

/// The types of a fragment, which must hold nothing else.
fn types_of(json: Value) -> Result<Map<String, Value>, String> {
    let mut types = Map::new();
    for (name, space) in json.as_object().into_iter().flatten() {
        if !name.is_empty() {
            return Err(format!("namespace `{name}`"));
        }
        for (member, what) in [("entityTypes", "an entity type"), ("actions", "an action")] {
            let declares = space.get(member).and_then(Value::as_object);
            if declares.is_some_and(|declares| !declares.is_empty()) {
                return Err(what.to_owned());
            }
        }
        let found = space.get("commonTypes").and_then(Value::as_object);
        types.extend(found.into_iter().flatten().map(|(name, one)| (name.clone(), one.clone())));
    }
    Ok(types)
}

/// Adds what `path` leads to. False: there are too many already.
fn ask(fields: &mut Vec<Field>, declared: &[Field], path: &[Box<str>], decides: bool) -> bool {
    let Some((name, rest)) = path.split_first() else { return true };
    let Some(known) = declared.iter().find(|field| field.name == *name) else { return true };
    let at = match fields.binary_search_by(|field| field.name.cmp(name)) {
        Ok(at) => at,
        Err(_) if fields.len() >= PLAN_FIELDS_MAX => return false,
        Err(at) => {
            let shape = match &known.shape {
                Shape::Record(_) => Shape::Record(Vec::new()),
                other @ (Shape::Bool | Shape::Long | Shape::Text | Shape::Set(_)) => other.clone(),
            };
            fields.insert(at, Field { name: name.clone(), shape, decides: false });
            at
        }
    };
    let Some(field) = fields.get_mut(at) else { return true };
    field.decides |= decides;
    match (&mut field.shape, &known.shape) {
        (Shape::Record(fields), Shape::Record(declared)) => ask(fields, declared, rest, decides),
        (Shape::Bool | Shape::Long | Shape::Text | Shape::Set(_) | Shape::Record(_), _) => true,
    }
}

/// The shape of a type in Cedar's JSON form; `depth` more records or sets may be opened.
fn shape(
    found: &Value,
    types: &Map<String, Value>,
    depth: usize,
) -> Result<Shape, (String, String)> {
    let unfit = |what: &str| {
        let cure = "use Bool, Long, String, sets of those, and records of those".to_owned();
        Err((format!("{what} cannot be an argument"), cure))
    };
    let Some(depth) = depth.checked_sub(1) else {
        let what = format!("nested deeper than {ARGUMENT_DEPTH_MAX} levels");
        return Err((what, "leave the inner levels out".to_owned()));
    };
    match found.get("type").and_then(Value::as_str).unwrap_or_default() {
        "Boolean" | "Bool" => Ok(Shape::Bool),
        "Long" => Ok(Shape::Long),
        "String" => Ok(Shape::Text),
        "EntityOrCommon" => {
            let name = found.get("name").and_then(Value::as_str).unwrap_or_default();
            match (types.get(name), name.strip_prefix("__cedar::").unwrap_or(name)) {
                (Some(known), _) => shape(known, types, depth),
                (None, "Bool") => Ok(Shape::Bool),
                (None, "Long") => Ok(Shape::Long),
                (None, "String") => Ok(Shape::Text),
                (None, other) => unfit(&format!("`{other}`")),
            }
        }
        "Set" => {
            let element = found.get("element").unwrap_or(&Value::Null);
            let element = shape(element, types, depth)?;
            match element {
                Shape::Bool | Shape::Long | Shape::Text => Ok(Shape::Set(Box::new(element))),
                Shape::Set(_) | Shape::Record(_) => unfit("a set of sets or records"),
            }
        }
        "Record" => {
            let attributes = found.get("attributes").and_then(Value::as_object);
            let field = |(name, found): (&String, &Value)| {
                let shape = shape(found, types, depth)?;
                Ok(Field { name: Box::from(name.as_str()), shape, decides: false })
            };
            let fields: Result<_, (String, String)> =
                attributes.into_iter().flatten().map(field).collect();
            Ok(Shape::Record(fields?))
        }
        other => unfit(&format!("type `{other}`")),
    }
}

fn record(fields: &[Field], text: &mut String) {
    text.push_str("{ ");
    for field in fields {
        let _ = write!(text, "\"{}\"?: ", EntityId::new(&field.name).escaped());
        cedar_name(&field.shape, text);
        text.push_str(", ");
    }
    text.push('}');
}

fn cedar_name(shape: &Shape, text: &mut String) {
    match shape {
        Shape::Bool => text.push_str("__cedar::Bool"),
        Shape::Long => text.push_str("__cedar::Long"),
        Shape::Text => text.push_str("__cedar::String"),
        Shape::Set(member) => {
            text.push_str("Set<");
            cedar_name(member, text);
            text.push('>');
        }
        Shape::Record(fields) => record(fields, text),
    }
}
