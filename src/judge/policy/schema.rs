//! The shipped schema, widened by the configured extension methods, and what we read out of it.

use std::collections::HashSet;

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, Schema};

/// The shipped schema; `conf/portcullis.cedarschema` of the source tree.
pub const SCHEMA: &str = include_str!("../../../conf/portcullis.cedarschema");

/// Builds the schema; `arguments` is the type of `context.arguments`. A method that the schema
/// already knows, or that repeats, is an error.
///
/// # Errors
/// A text for people.
pub(super) fn build(methods: &[&str], arguments: &str) -> Result<Schema, String> {
    let (before, after) = SCHEMA.split_once(NO_ARGUMENTS).ok_or("the shipped schema is damaged")?;
    let mut text = format!("{before}type Arguments = {arguments};{after}");
    for method in methods {
        let name = EntityId::new(method);
        text.push_str("\naction \"");
        text.push_str(&name.escaped());
        text.push_str(
            "\" in [\"extension\"] appliesTo { principal: [User, Agent], resource: [Server], \
             context: Asked };",
        );
    }
    match Schema::from_cedarschema_str(&text) {
        Ok((schema, _warnings)) => Ok(schema),
        Err(error) => Err(error.to_string()),
    }
}

/// Where the shipped schema leaves room for the arguments of tools.
const NO_ARGUMENTS: &str = "type Arguments = {};";

/// Kinds of resources, as bits, so that a scope may cover several.
pub(super) mod kind {
    pub(in crate::judge::policy) const GATEWAY: u8 = 1;
    pub(in crate::judge::policy) const SERVER: u8 = 2;
    pub(in crate::judge::policy) const TOOL: u8 = 4;
    pub(in crate::judge::policy) const PROMPT: u8 = 8;
    pub(in crate::judge::policy) const RESOURCE: u8 = 16;
    /// Everything that belongs to a server.
    pub(in crate::judge::policy) const IN_SERVER: u8 = SERVER | TOOL | PROMPT | RESOURCE;
    /// Everything.
    pub(in crate::judge::policy) const ALL: u8 = GATEWAY | IN_SERVER;

    /// The bit of an entity type; 0 for a type that is not a resource.
    pub(in crate::judge::policy) fn of(entity_type: &str) -> u8 {
        match entity_type {
            "Gateway" => GATEWAY,
            "Server" => SERVER,
            "Tool" => TOOL,
            "Prompt" => PROMPT,
            "Resource" => RESOURCE,
            _ => 0,
        }
    }
}

/// Entity type names, parsed once.
pub(super) struct Types {
    pub(super) user: EntityTypeName,
    pub(super) agent: EntityTypeName,
    pub(super) group: EntityTypeName,
    pub(super) gateway: EntityTypeName,
    pub(super) server: EntityTypeName,
    pub(super) tool: EntityTypeName,
    pub(super) prompt: EntityTypeName,
    pub(super) resource: EntityTypeName,
}

impl Types {
    pub(super) fn new() -> Result<Self, String> {
        let parse = |name: &str| name.parse::<EntityTypeName>().map_err(|error| error.to_string());
        Ok(Self {
            user: parse("User")?,
            agent: parse("Agent")?,
            group: parse("Group")?,
            gateway: parse("Gateway")?,
            server: parse("Server")?,
            tool: parse("Tool")?,
            prompt: parse("Prompt")?,
            resource: parse("Resource")?,
        })
    }
}

/// One entity; the id is taken as it is, without any escaping.
pub(super) fn uid(entity_type: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(entity_type.clone(), EntityId::new(id))
}

/// The actions that can be asked for, numbered densely. Groups of actions are not among them: a
/// method that is called like a group is unknown.
pub(super) struct Actions {
    index: hashbrown::HashMap<Box<str>, u16>,
    entities: Vec<Entity>,
    ancestors: Vec<Vec<EntityUid>>,
}

impl Actions {
    pub(super) fn new(schema: &Schema) -> Result<Self, String> {
        let all = schema.action_entities().map_err(|error| error.to_string())?;
        let real: HashSet<EntityUid> =
            schema.request_envs().map(|env| env.action().clone()).collect();
        let mut entities: Vec<Entity> =
            all.iter().filter(|entity| real.contains(&entity.uid())).cloned().collect();
        entities.sort_by_key(|entity| entity.uid().to_string());
        let mut index = hashbrown::HashMap::new();
        let mut ancestors = Vec::new();
        for (at, entity) in entities.iter().enumerate() {
            let number = u16::try_from(at).map_err(|_| "too many actions".to_owned())?;
            let uid = entity.uid();
            index.insert(Box::from(uid.id().unescaped()), number);
            ancestors.push(all.ancestors(&uid).into_iter().flatten().cloned().collect());
        }
        Ok(Self { index, entities, ancestors })
    }

    pub(super) fn number(&self, name: &str) -> Option<u16> {
        self.index.get(name).copied()
    }

    pub(super) fn entity(&self, number: u16) -> Option<&Entity> {
        self.entities.get(usize::from(number))
    }

    pub(super) fn len(&self) -> usize {
        self.entities.len()
    }

    /// The numbers of `listed` and of everything below them.
    pub(super) fn covered(&self, listed: &[EntityUid]) -> Vec<u16> {
        let under = |at: usize, entity: &Entity| {
            listed.contains(&entity.uid())
                || self
                    .ancestors
                    .get(at)
                    .is_some_and(|above| above.iter().any(|one| listed.contains(one)))
        };
        let hits = self.entities.iter().enumerate().filter(|(at, entity)| under(*at, entity));
        hits.filter_map(|(at, _)| u16::try_from(at).ok()).collect()
    }
}
