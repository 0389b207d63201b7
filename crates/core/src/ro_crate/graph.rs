//! A flattened JSON-LD graph: entities by their ids, in the order in which they were first named.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

/// The entities of a crate.
#[derive(Debug, Default)]
pub(super) struct Graph {
    entities: Vec<Map<String, Value>>,
    places: HashMap<String, usize>,
    /// Which links there are, so that none is made twice.
    links: HashSet<(usize, &'static str, String)>,
}

impl Graph {
    /// Adds an entity, unless it is there.
    pub(super) fn add(&mut self, id: &str, properties: Value) {
        if self.places.contains_key(id) {
            return;
        }
        let mut entity = Map::new();
        entity.insert("@id".to_owned(), json!(id));
        if let Value::Object(properties) = properties {
            entity.extend(properties);
        }
        self.places.insert(id.to_owned(), self.entities.len());
        self.entities.push(entity);
    }

    /// Sets a property of an entity that is there.
    pub(super) fn set(&mut self, id: &str, property: &str, value: Value) {
        if let Some(place) = self.places.get(id) {
            self.entities[*place].insert(property.to_owned(), value);
        }
    }

    /// Adds an id to the list that a property of an entity is, unless it is in it.
    pub(super) fn link(&mut self, id: &str, property: &'static str, to: &str) {
        let Some(place) = self.places.get(id).copied() else { return };
        if !self.links.insert((place, property, to.to_owned())) {
            return;
        }
        let list = self.entities[place].entry(property).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(json!({"@id": to}));
        }
    }

    /// The entities as JSON-LD has them.
    pub(super) fn into_entities(self) -> Vec<Value> {
        self.entities.into_iter().map(Value::Object).collect()
    }
}
