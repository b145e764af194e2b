//! The part of JSON Schema that tool declarations can say in TypeScript.
//!
//! What lies outside is [`Inexpressible`]. The borders are the reference encoder's, odd ones included: `oneOf` and
//! `allOf` are outside, a schema without a type is outside unless it is empty, unknown keywords are ignored.

use indexmap::IndexMap;
use serde_json::{Map, Value};

/// The schema cannot be said in TypeScript; the whole declaration falls back to JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inexpressible;

pub(super) type Result<T> = std::result::Result<T, Inexpressible>;

/// A type, with what its comment lines say.
#[derive(Debug)]
pub(super) struct Type {
    pub(super) kind: Kind,
    /// Text of the comment lines; null when there is none.
    pub(super) description: Value,
    /// Bounds such as `maxLength`, in order of their keys.
    pub(super) constraints: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// A type by its TypeScript name, or by the name of an interface.
    Named(String),
    Object(Object),
    Array(Box<Type>),
    /// The allowed values.
    Enum(Vec<Value>),
    AnyOf(Vec<Type>),
}

#[derive(Debug, Default)]
pub(super) struct Object {
    /// In the order of their names.
    pub(super) fields: Vec<Field>,
    pub(super) additional: Additional,
}

/// What an object may hold beside its fields.
#[derive(Debug, Default)]
pub(super) enum Additional {
    /// The schema does not say.
    #[default]
    Unsaid,
    Any,
    Never,
    Of(Box<Type>),
    /// Neither a schema nor a boolean: an error if it comes to printing it.
    Invalid,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) ty: Type,
    pub(super) optional: bool,
    /// Null when there is none.
    pub(super) default: Value,
}

/// The `$defs` met so far, and whether the root was referred to.
#[derive(Debug, Default)]
pub(super) struct Registry {
    pub(super) definitions: IndexMap<String, Value>,
    pub(super) refers_to_root: bool,
}

impl Registry {
    /// An object schema. `{}` is an object without fields.
    pub(super) fn object(&mut self, schema: &Map<String, Value>) -> Result<Object> {
        match schema.get("$defs") {
            Some(Value::Object(definitions)) => {
                self.definitions
                    .extend(definitions.iter().map(|(name, schema)| (name.clone(), schema.clone())));
            }
            Some(other) if is_truthy(other) => return Err(Inexpressible),
            _ => {}
        }
        let additional = match schema.get("additionalProperties") {
            None | Some(Value::Null) => Additional::Unsaid,
            Some(Value::Bool(true)) => Additional::Any,
            Some(Value::Bool(false)) => Additional::Never,
            Some(inner @ Value::Object(_)) => Additional::Of(Box::new(self.parse(inner)?)),
            Some(_) => Additional::Invalid,
        };
        let fields = match schema.get("properties") {
            None => Vec::new(),
            Some(Value::Object(properties)) => self.fields(properties, schema.get("required"))?,
            Some(_) => return Err(Inexpressible),
        };
        Ok(Object { fields, additional })
    }

    fn fields(&mut self, properties: &Map<String, Value>, required: Option<&Value>) -> Result<Vec<Field>> {
        let required: Vec<&str> = match required {
            None => Vec::new(),
            Some(Value::Array(names)) if names.iter().all(|name| !name.is_array() && !name.is_object()) => {
                names.iter().filter_map(Value::as_str).collect()
            }
            Some(_) => return Err(Inexpressible),
        };
        properties
            .iter()
            .map(|(name, schema)| {
                Ok(Field {
                    name: name.clone(),
                    ty: self.parse(schema)?,
                    optional: !required.contains(&name.as_str()),
                    default: schema.get("default").cloned().unwrap_or_default(),
                })
            })
            .collect()
    }

    /// Any schema, by the first keyword that says what it is.
    pub(super) fn parse(&mut self, schema: &Value) -> Result<Type> {
        let fields = match schema {
            Value::Bool(true) => return Ok(Type::bare("any")),
            Value::Bool(false) => return Ok(Type::bare("null")),
            Value::Object(fields) if fields.is_empty() => return Ok(Type::bare("any")),
            Value::Object(fields) => fields,
            _ => return Err(Inexpressible),
        };
        if let Some(target) = fields.get("$ref") {
            let name = self.resolve(target.as_str().ok_or(Inexpressible)?)?;
            return Ok(Type::of(fields, Kind::Named(name), &[]));
        }
        if let Some(variants) = fields.get("anyOf") {
            let variants = variants.as_array().ok_or(Inexpressible)?;
            let variants = variants.iter().map(|variant| self.parse(variant)).collect::<Result<_>>()?;
            return Ok(Type::of(fields, Kind::AnyOf(variants), &[]));
        }
        if let Some(values) = fields.get("enum") {
            let values = values.as_array().ok_or(Inexpressible)?;
            check_enum(values, fields.get("type"))?;
            return Ok(Type::of(fields, Kind::Enum(values.clone()), &[]));
        }
        match fields.get("type").ok_or(Inexpressible)? {
            Value::Array(names) => Ok(Type::of(fields, Kind::Named(union(names)?), &[])),
            Value::String(name) => self.typed(name, fields),
            _ => Err(Inexpressible),
        }
    }

    /// A schema that names its one type.
    fn typed(&mut self, name: &str, fields: &Map<String, Value>) -> Result<Type> {
        let named = |name: &str| Kind::Named(name.to_owned());
        Ok(match name {
            "object" => Type::of(fields, Kind::Object(self.object(fields)?), &[]),
            "array" => {
                let item = match fields.get("items").filter(|items| is_truthy(items)) {
                    Some(items) => self.parse(items)?,
                    None => Type::bare("any"),
                };
                Type::of(fields, Kind::Array(Box::new(item)), &["maxItems", "minItems"])
            }
            "string" => Type::of(fields, named(name), &["maxLength", "minLength", "pattern"]),
            "integer" | "number" => Type::of(fields, named("number"), &["maximum", "minimum"]),
            other => Type::of(fields, named(other), &[]),
        })
    }

    /// The interface a `$ref` means.
    fn resolve(&mut self, target: &str) -> Result<String> {
        if target == "#" {
            self.refers_to_root = true;
            return Ok(ROOT_INTERFACE.to_owned());
        }
        let path = target.strip_prefix("#/$defs/").ok_or(Inexpressible)?;
        let name = path.rsplit('/').next().unwrap_or(path);
        match self.definitions.get(name) {
            Some(Value::Object(_)) => Ok(name.to_owned()),
            _ => Err(Inexpressible),
        }
    }
}

/// The interface that stands for the whole argument object when the schema refers to its root.
pub(super) const ROOT_INTERFACE: &str = "parameters";

impl Type {
    /// A type without comments.
    fn bare(name: &str) -> Self {
        Self { kind: Kind::Named(name.to_owned()), description: Value::Null, constraints: Vec::new() }
    }

    /// A type with the comments of its schema; `bounds` in order of their names.
    fn of(schema: &Map<String, Value>, kind: Kind, bounds: &[&'static str]) -> Self {
        let constraints = bounds.iter().filter_map(|&key| Some((key, schema.get(key)?.clone()))).collect();
        Self { kind, description: schema.get("description").cloned().unwrap_or_default(), constraints }
    }
}

/// A list of type names, as the union it means.
fn union(names: &[Value]) -> Result<String> {
    let names = names.iter().map(|name| match name.as_str() {
        Some(name @ ("string" | "number" | "boolean" | "null")) => Ok(name),
        Some("integer") => Ok("number"),
        Some("object") => Ok("{}"),
        Some("array") => Ok("Array<any>"),
        _ => Err(Inexpressible),
    });
    Ok(names.collect::<Result<Vec<_>>>()?.join(" | "))
}

/// The values of an enum must agree with its type. In Python a boolean is an integer.
fn check_enum(values: &[Value], ty: Option<&Value>) -> Result<()> {
    let name = match ty {
        None => return Ok(()),
        Some(Value::Array(names)) => match names.as_slice() {
            [name] => name,
            [first, second] if first == "null" => second,
            [first, second] if second == "null" => first,
            _ => return Err(Inexpressible),
        },
        Some(name) => name,
    };
    let fits = |value: &Value| match name.as_str() {
        Some("string") => value.is_string(),
        Some("number") => value.is_number() || value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64() || value.is_boolean(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    let agree = values.iter().all(|value| value.is_null() || fits(value));
    if agree { Ok(()) } else { Err(Inexpressible) }
}

/// Python's truth: everything but null, false, zero and what is empty.
pub(super) fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}
