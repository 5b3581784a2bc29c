//! `policy schema`: types of tools' arguments, from what a server answers to `tools/list`.
//!
//! What the server says of itself is not believed: a type only says what a policy may ask for. An
//! argument that then has another form is one that policies cannot hold, and denies where one asks
//! for it. Its words stand in comments, on one line, and are marked as its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::Config;
use crate::judge::policy::{PolicySet, Setting, Source, Sources};
use crate::limits::{
    ARGUMENT_DEPTH_MAX, SCHEMA_PROPERTIES_MAX, SCHEMA_TEXT_BYTES_MAX, SCHEMA_TOOLS_MAX,
};

/// A page of `tools/list`, as an answer or its result alone.
#[derive(Deserialize)]
struct Page {
    result: Option<List>,
    #[serde(flatten)]
    bare: Option<List>,
}

#[derive(Deserialize)]
struct List {
    tools: Vec<Tool>,
    #[serde(rename = "nextCursor")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Tool {
    name: String,
    description: Option<String>,
    #[serde(rename = "inputSchema", default)]
    input: Value,
}

/// The content of a file for `schema.d`, for `server` of the configuration; `answers` are the pages
/// of its `tools/list`, one JSON text after the other.
///
/// # Errors
/// In words: no such server, no such answer, pages that lack, or a tool that is there twice.
pub fn schema(config: &Config, server: &str, answers: &str) -> Result<String, Vec<String>> {
    let one = |fault: String| vec![fault];
    let servers = names(config);
    if !servers.contains(&server) {
        return Err(one(unknown(config, server)));
    }
    let tools = read(answers).map_err(|fault| one(short(&fault)))?;
    let mut text = format!(
        "// Tools of {server} and their arguments, by what it answers to tools/list. Every\n\
         // argument is optional to policies. Make it anew when the server changes.\n\n\
         // A policy that names another tool of the server is a fault.\n\
         @complete({server:?})\ntype AllTools = {{}};\n"
    );
    let mut names = Names::default();
    for tool in &tools {
        if count(&tool.input) > SCHEMA_PROPERTIES_MAX {
            let words =
                format!("tool {:?} has more than {SCHEMA_PROPERTIES_MAX} arguments", tool.name);
            return Err(one(short(&words)));
        }
        write_tool(server, tool, &mut names, &mut text);
        if text.len() > SCHEMA_TEXT_BYTES_MAX {
            return Err(one(format!("types of more than {SCHEMA_TEXT_BYTES_MAX} bytes")));
        }
    }
    sound(&servers, server, &text)?;
    Ok(text)
}

fn names(config: &Config) -> Vec<&str> {
    config.servers.iter().map(|server| server.name.as_str()).collect()
}

/// There is no such server.
pub(super) fn unknown(config: &Config, server: &str) -> String {
    format!("no server is called {server:?}; there are: {}", names(config).join(", "))
}

fn read(answers: &str) -> Result<Vec<Tool>, String> {
    let pages = serde_json::Deserializer::from_str(answers).into_iter::<Page>();
    let (mut tools, mut more) = (Vec::new(), None);
    for (at, page) in (1..).zip(pages) {
        let page =
            page.map_err(|error| format!("page {at}: not an answer to tools/list: {error}"))?;
        let Some(list) = page.result.or(page.bare) else {
            return Err(format!("page {at}: not an answer to tools/list: it has no tools"));
        };
        tools.extend(list.tools);
        more = Some(list.next.is_some());
    }
    match more {
        None => Err("there is no answer to tools/list in it".to_owned()),
        Some(true) => {
            Err("the last page names a next one (nextCursor): put all pages in".to_owned())
        }
        Some(false) if tools.len() > SCHEMA_TOOLS_MAX => {
            Err(format!("more than {SCHEMA_TOOLS_MAX} tools"))
        }
        Some(false) => {
            tools.sort_by(|one, other| one.name.cmp(&other.name));
            let twice = tools.windows(2).find(|pair| matches!(pair, [a, b] if a.name == b.name));
            match twice.and_then(|pair| pair.first()) {
                Some(tool) => Err(format!("tool {:?} is there twice", tool.name)),
                None => Ok(tools),
            }
        }
    }
}

fn write_tool(server: &str, tool: &Tool, names: &mut Names, text: &mut String) {
    let id = format!("{server}/{}", tool.name);
    text.push('\n');
    if let Some(words) = &tool.description {
        let _ = writeln!(text, "// In the server's own words: {}", comment(words));
    }
    let (name, fields) = (names.name(&tool.name), properties(&tool.input));
    let _ = write!(text, "@tool({id:?})\ntype {name} = ");
    match fields {
        Some(fields) => write_record(fields, 1, text),
        // Policies see no argument of it then.
        None => text.push_str("{}"),
    }
    text.push_str(";\n");
}

/// Names of types that are given.
#[derive(Default)]
struct Names {
    given: BTreeSet<String>,
    /// The number to go on with, by the name without one: many tools may have the same.
    next: BTreeMap<String, usize>,
}

impl Names {
    /// A name in Cedar's grammar, that no other tool has.
    fn name(&mut self, tool: &str) -> String {
        let fit = |one: char| if one.is_ascii_alphanumeric() { one } else { '_' };
        // A word of Cedar's own (`Set`, `Long`) would be taken for that, and one of ours for ours.
        let plain = tool.chars().take(TYPE_NAME_CHARS).map(fit).collect::<String>();
        let plain = format!("Of_{plain}");
        let next = self.next.entry(plain.clone()).or_insert(1);
        let mut name = plain.clone();
        loop {
            if *next > 1 {
                name = format!("{plain}_{next}");
            }
            *next += 1;
            if self.given.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// Properties of a schema, nested ones too; serde_json bounds how deep they nest.
fn count(schema: &Value) -> usize {
    let items = schema.get("items").map_or(0, count);
    let of = |fields: &Map<String, Value>| fields.values().map(|field| 1 + count(field)).sum();
    items + properties(schema).map_or(0, of)
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

fn write_record(fields: &Map<String, Value>, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    text.push_str("{\n");
    // The same text for the same tools, in whatever order a server answers.
    let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    for (name, schema) in fields {
        let mut of = String::new();
        match write_type(schema, depth + 1, &mut of) {
            Ok(()) => {
                let _ = writeln!(text, "{indent}{name:?}?: {of},");
            }
            Err(why) => {
                let name = comment(name);
                let _ = writeln!(text, "{indent}// {name}: {why}, which policies cannot hold");
            }
        }
    }
    text.push_str(&"  ".repeat(depth - 1));
    text.push('}');
}

/// Appends the type; the error says what it is that has none.
fn write_type(schema: &Value, depth: usize, text: &mut String) -> Result<(), &'static str> {
    if depth >= ARGUMENT_DEPTH_MAX {
        return Err("nested too deep");
    }
    for combined in ["anyOf", "oneOf", "allOf", "not", "$ref"] {
        if schema.get(combined).is_some() {
            return Err("a combined or referenced schema");
        }
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => text.push_str("String"),
        Some("integer") => text.push_str("Long"),
        Some("boolean") => text.push_str("Bool"),
        Some("number") => return Err("a number with a fraction"),
        Some("object") => match properties(schema) {
            Some(fields) => write_record(fields, depth, text),
            None => return Err("an object of any form"),
        },
        Some("array") => {
            let mut item = String::new();
            write_type(schema.get("items").unwrap_or(&Value::Null), depth + 1, &mut item)?;
            if !["String", "Long", "Bool"].contains(&item.as_str()) {
                return Err("a list of lists or objects");
            }
            let _ = write!(text, "Set<{item}>");
        }
        Some(_) | None => return Err("a schema without one type"),
    }
    Ok(())
}

/// Foreign words as a comment: one line, and not a long one.
pub(super) fn comment(words: &str) -> String {
    words.chars().take(COMMENT_CHARS).map(plain).collect()
}

/// A fault that may quote the server: one line, and not megabytes of it.
fn short(fault: &str) -> String {
    fault.chars().take(FAULT_CHARS).map(plain).collect()
}

/// A character as a terminal may show it: none that steers it, turns the direction of what follows
/// (U+202E) or cannot be seen (U+200B). Rust escapes those and, for literals, three more.
fn plain(one: char) -> char {
    let shown = matches!(one, '\'' | '"' | '\\') || one.escape_debug().len() == 1;
    if shown { one } else { ' ' }
}

/// What is printed loads: it is read as the gateway would read it.
fn sound(servers: &[&str], server: &str, text: &str) -> Result<(), Vec<String>> {
    let source = |text: &str| Source { path: "schema".into(), text: text.to_owned() };
    let any = format!(
        "@id(\"any\") permit (principal, action == Action::\"ping\", \
         resource == Server::{server:?});"
    );
    let sources =
        Sources { enforced: vec![source(&any)], schemas: vec![source(text)], ..Sources::default() };
    let setting = Setting {
        epoch: 1,
        servers,
        credentials: &[],
        methods: &[],
        timezone: "UTC",
        geoip: false,
    };
    match PolicySet::compile_all(&sources, Path::new("."), &setting) {
        Ok(_) => Ok(()),
        Err(faults) => Err(faults.iter().map(|fault| short(&fault.to_string())).collect()),
    }
}

const COMMENT_CHARS: usize = 80;
const FAULT_CHARS: usize = 400;
const TYPE_NAME_CHARS: usize = 64;
