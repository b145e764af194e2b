//! What is checked in a schema before the grammar engine sees it: its size, and whether it is a schema at all.

use serde_json::{Map, Value};

use crate::CompileError;

/// Characters of the schema's text.
const MAX_CHARS: usize = 120_000;
/// Schemas inside each other.
const MAX_DEPTH: usize = 30;
/// Members of one `enum`.
const MAX_ENUM: usize = 1_000;
/// Characters of all members of one `enum`.
const MAX_ENUM_CHARS: usize = 75_000;
/// Properties in all of the schema.
const MAX_PROPERTIES: usize = 3_000;
/// Members of one `anyOf`, `oneOf` or `allOf`.
const MAX_ALTERNATIVES: usize = 500;

/// Keywords whose value is a schema.
const ONE: &[&str] = &[
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords whose value is a list of schemas.
const LISTS: &[&str] = &["allOf", "anyOf", "items", "oneOf", "prefixItems"];
/// Keywords whose value is a map of schemas.
const MAPS: &[&str] = &["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];
const TYPES: &[&str] = &["array", "boolean", "integer", "null", "number", "object", "string"];

/// Refuses a schema that is too large or malformed. `schema` is the root.
pub(crate) fn check(schema: &Value) -> Result<(), CompileError> {
    at_most("the characters of the schema", MAX_CHARS, schema.to_string().chars().count())?;
    let mut check = Check { root: schema, properties: 0 };
    check.schema(schema, "#", 1)
}

/// Takes out the keywords that the engine refuses now and then: expressions it has no automaton for, odd multiples. True
/// if there were any.
pub(crate) fn relax(schema: &mut Value) -> bool {
    const RELAXED: &[&str] = &["multipleOf", "pattern", "patternProperties"];
    let Value::Object(schema) = schema else { return false };
    let before = schema.len();
    schema.retain(|keyword, _| !RELAXED.contains(&keyword.as_str()));
    let mut changed = schema.len() < before;
    for (keyword, value) in schema {
        let word = keyword.as_str();
        match value {
            Value::Array(list) if LISTS.contains(&word) => {
                for member in list.iter_mut() {
                    changed |= relax(member);
                }
            }
            Value::Object(map) if MAPS.contains(&word) => {
                for member in map.values_mut() {
                    changed |= relax(member);
                }
            }
            value if ONE.contains(&word) => changed |= relax(value),
            _ => {}
        }
    }
    changed
}

struct Check<'a> {
    root: &'a Value,
    properties: usize,
}

impl Check<'_> {
    fn schema(&mut self, schema: &Value, at: &str, depth: usize) -> Result<(), CompileError> {
        at_most("the depth of the schema", MAX_DEPTH, depth)?;
        let schema = match schema {
            Value::Object(schema) => schema,
            Value::Bool(_) => return Ok(()),
            _ => return Err(malformed(at, "a schema must be an object or a boolean")),
        };
        check_keywords(schema, at)?;
        self.check_reference(schema, at)?;
        for (keyword, value) in schema {
            let at = format!("{at}/{keyword}");
            let word = keyword.as_str();
            match value {
                Value::Array(list) if LISTS.contains(&word) => {
                    at_most("the members of an anyOf, oneOf or allOf", MAX_ALTERNATIVES, list.len())?;
                    for (index, member) in list.iter().enumerate() {
                        self.schema(member, &format!("{at}/{index}"), depth + 1)?;
                    }
                }
                Value::Object(map) if MAPS.contains(&word) => {
                    if word == "properties" {
                        self.properties += map.len();
                        at_most("the properties of the schema", MAX_PROPERTIES, self.properties)?;
                    }
                    for (name, member) in map {
                        self.schema(member, &format!("{at}/{name}"), depth + 1)?;
                    }
                }
                _ if ONE.contains(&word) => self.schema(value, &at, depth + 1)?,
                _ if MAPS.contains(&word) => return Err(malformed(&at, "this must be an object of schemas")),
                _ if LISTS.contains(&word) => return Err(malformed(&at, "this must be an array of schemas")),
                _ => {}
            }
        }
        Ok(())
    }

    /// Only references into the same schema: nothing is ever fetched.
    fn check_reference(&self, schema: &Map<String, Value>, at: &str) -> Result<(), CompileError> {
        let Some(reference) = schema.get("$ref") else { return Ok(()) };
        let Some(reference) = reference.as_str() else {
            return Err(malformed(&format!("{at}/$ref"), "this must be a string"));
        };
        let known = match reference.strip_prefix('#') {
            Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => {
                self.root.pointer(&percent_decoded(pointer)).is_some()
            }
            // An anchor; the engine looks it up.
            Some(_) => true,
            None => false,
        };
        if known {
            return Ok(());
        }
        Err(malformed(
            &format!("{at}/$ref"),
            &format!("\"{reference}\" does not point into this schema; use \"#/$defs/NAME\""),
        ))
    }
}

fn check_keywords(schema: &Map<String, Value>, at: &str) -> Result<(), CompileError> {
    if let Some(kind) = schema.get("type") {
        let kinds = kind.as_array().map_or_else(|| std::slice::from_ref(kind), Vec::as_slice);
        let known = kinds.iter().all(|kind| kind.as_str().is_some_and(|kind| TYPES.contains(&kind)));
        if !known || kinds.is_empty() {
            let why = format!("{kind} is no type; use one or several of {}", TYPES.join(", "));
            return Err(malformed(&format!("{at}/type"), &why));
        }
    }
    if let Some(members) = schema.get("enum") {
        let Some(members) = members.as_array().filter(|members| !members.is_empty()) else {
            return Err(malformed(&format!("{at}/enum"), "this must be an array with at least one member"));
        };
        at_most("the members of an enum", MAX_ENUM, members.len())?;
        let chars = members.iter().map(|member| member.to_string().chars().count()).sum();
        at_most("the characters of an enum", MAX_ENUM_CHARS, chars)?;
    }
    if let Some(required) = schema.get("required") {
        let names = required.as_array().is_some_and(|names| names.iter().all(Value::is_string));
        // Draft 3 had a boolean here; some generators still write it.
        if !names && !required.is_boolean() {
            return Err(malformed(&format!("{at}/required"), "this must be an array of strings"));
        }
    }
    Ok(())
}

/// `#/$defs/a%20b` points to the key `a b`.
fn percent_decoded(pointer: &str) -> String {
    let mut bytes = Vec::with_capacity(pointer.len());
    let mut rest = pointer.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn at_most(what: &'static str, limit: usize, found: usize) -> Result<(), CompileError> {
    if found > limit { Err(CompileError::TooLarge { what, limit, found }) } else { Ok(()) }
}

fn malformed(at: &str, why: &str) -> CompileError {
    CompileError::Malformed { at: at.to_owned(), why: why.to_owned() }
}
