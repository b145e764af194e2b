//! Printing tool declarations as a TypeScript namespace.

use serde_json::Value;

use super::schema::{
    Additional, Field, Inexpressible, Kind, Object, ROOT_INTERFACE, Registry, Result, Type, is_truthy,
};
use crate::python_text::{self, Separators};

const INDENT: &str = "  ";

/// The namespace of all functions among `tools` (keys sorted); empty when there is none.
pub(super) fn encode(tools: &[Value]) -> Result<String> {
    let functions = tools.iter().filter(|tool| tool["type"] == "function" && is_truthy(&tool["function"]));
    let functions = functions.map(|tool| function(&tool["function"])).collect::<Result<Vec<_>>>()?;
    if functions.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("# Tools\n\n## functions\nnamespace functions {{\n{}\n}}\n", functions.join("\n")))
}

/// The interfaces a function's schema defines, its description, its type.
fn function(function: &Value) -> Result<String> {
    let empty = Value::Object(serde_json::Map::new());
    let parameters = Some(&function["parameters"]).filter(|schema| is_truthy(schema)).unwrap_or(&empty);
    let mut registry = Registry::default();
    let object = registry.object(parameters.as_object().ok_or(Inexpressible)?)?;

    let mut parts = Vec::new();
    let refers_to_root = registry.refers_to_root;
    if refers_to_root {
        parts.push(root_interface(&object)?);
    }
    for (name, schema) in registry.definitions.clone() {
        let printed = registry.parse(&schema)?.print("")?;
        let description = schema.as_object().ok_or(Inexpressible)?.get("description");
        let comment = comment(description.unwrap_or(&Value::Null), "")?;
        parts.push(format!("{comment}interface {name} {printed}"));
    }
    let comment = comment(&function["description"], "")?;
    let name = function.get("name").map_or_else(|| "function".to_owned(), python_text::str);
    let argument = if refers_to_root { ROOT_INTERFACE.to_owned() } else { object.print("")? };
    parts.push(format!("{comment}type {name} = (_: {argument}) => any;"));
    Ok(parts.join("\n"))
}

/// The argument object under a name, so that fields can refer to it. Fields stay in the order of their names.
fn root_interface(object: &Object) -> Result<String> {
    let fields = object.fields.iter().map(|field| field.print(INDENT)).collect::<Result<Vec<_>>>()?;
    let body = if fields.is_empty() { String::new() } else { format!("\n{}\n", fields.join(",\n")) };
    Ok(format!("interface {ROOT_INTERFACE} {{{body}}}"))
}

/// A description as comment lines, each with its line end; an empty line stays empty.
fn comment(description: &Value, indent: &str) -> Result<String> {
    if !is_truthy(description) {
        return Ok(String::new());
    }
    let text = description.as_str().ok_or(Inexpressible)?;
    let line = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("{indent}// {line}\n") };
    Ok(text.split('\n').map(line).collect())
}

impl Type {
    /// The comment lines above a value of this type.
    fn comments(&self, indent: &str) -> Result<String> {
        let mut lines = comment(&self.description, indent)?;
        if !self.constraints.is_empty() {
            let bounds =
                self.constraints.iter().map(|(key, value)| format!("{key}: {}", python_text::str(value)));
            let bounds = bounds.collect::<Vec<_>>().join(", ");
            lines.extend([indent, "// ", &bounds, "\n"]);
        }
        Ok(lines)
    }

    /// The type itself; `indent` is that of the line it starts on.
    fn print(&self, indent: &str) -> Result<String> {
        Ok(match &self.kind {
            Kind::Named(name) => name.clone(),
            Kind::Object(object) => object.print(indent)?,
            Kind::Array(item) => {
                let inner = format!("{indent}{INDENT}");
                match item.comments(&inner)? {
                    comments if comments.is_empty() => format!("Array<{}>", item.print(indent)?),
                    comments => format!("Array<\n{comments}{inner}{}\n{indent}>", item.print(&inner)?),
                }
            }
            Kind::Enum(values) => {
                // Quoted without escaping, as the reference does.
                let value = |value: &Value| match value {
                    Value::String(text) => format!("\"{text}\""),
                    other => python_text::repr(other),
                };
                values.iter().map(value).collect::<Vec<_>>().join(" | ")
            }
            Kind::AnyOf(variants) => {
                variants.iter().map(|variant| variant.print(indent)).collect::<Result<Vec<_>>>()?.join(" | ")
            }
        })
    }
}

impl Object {
    /// Required fields first, then the optional ones, then what else may be there.
    fn print(&self, indent: &str) -> Result<String> {
        let inner = format!("{indent}{INDENT}");
        let (optional, required): (Vec<&Field>, Vec<&Field>) =
            self.fields.iter().partition(|field| field.optional);
        let fields = required.into_iter().chain(optional);
        let mut lines = fields.map(|field| field.print(&inner)).collect::<Result<Vec<_>>>()?;
        let additional = match &self.additional {
            Additional::Unsaid => None,
            Additional::Any => Some("any".to_owned()),
            Additional::Never => Some("never".to_owned()),
            Additional::Of(ty) => Some(ty.print(&inner)?),
            Additional::Invalid => return Err(Inexpressible),
        };
        lines.extend(additional.map(|ty| format!("{inner}[k: string]: {ty}")));
        if lines.is_empty() {
            return Ok("{}".to_owned());
        }
        Ok(format!("{{\n{}\n{indent}}}", lines.join(",\n")))
    }
}

impl Field {
    fn print(&self, indent: &str) -> Result<String> {
        let comments = self.ty.comments(indent)?;
        let default = match &self.default {
            Value::Null => String::new(),
            value @ (Value::Bool(_) | Value::Number(_)) => {
                format!("{indent}// Default: {}\n", python_text::repr(value))
            }
            value => format!("{indent}// Default: {}\n", python_text::json(value, Separators::SPACED)),
        };
        let optional = if self.optional { "?" } else { "" };
        Ok(format!("{comments}{default}{indent}{}{optional}: {}", self.name, self.ty.print(indent)?))
    }
}
