//! Values as Python prints them: the reference renders prompts with Python, and the model has seen its spelling.

use serde_json::{Number, Value};

/// What stands between the entries of printed JSON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Separators {
    item: &'static str,
    key: &'static str,
}

impl Separators {
    /// `json.dumps(…, separators=(",", ":"))`.
    pub(crate) const COMPACT: Self = Self { item: ",", key: ":" };
    /// `json.dumps(…)`.
    pub(crate) const SPACED: Self = Self { item: ", ", key: ": " };
}

/// `json.dumps(value, ensure_ascii=False)`: keys in their order, nothing escaped that JSON does not demand.
pub(crate) fn json(value: &Value, separators: Separators) -> String {
    let mut out = String::new();
    write_json(value, separators, &mut out);
    out
}

fn write_json(value: &Value, separators: Separators, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(value) => out.push_str(&number(value)),
        Value::String(text) => out.push_str(&json_string(text)),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(separators.item);
                }
                write_json(item, separators, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (index, (key, field)) in fields.iter().enumerate() {
                if index > 0 {
                    out.push_str(separators.item);
                }
                out.push_str(&json_string(key));
                out.push_str(separators.key);
                write_json(field, separators, out);
            }
            out.push('}');
        }
    }
}

/// `serde_json` escapes exactly what Python does with `ensure_ascii=False`.
fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("invariant: a string is always JSON")
}

/// `str(value)`: text as it is, everything else as [`repr`].
pub(crate) fn str(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => repr(other),
    }
}

/// `repr(value)` of what `json.loads` gives.
pub(crate) fn repr(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(value) => number(value),
        Value::String(text) => repr_string(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(repr).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(key, field)| format!("{}: {}", repr_string(key), repr(field))).collect();
            format!("{{{}}}", fields.join(", "))
        }
    }
}

/// Integers as they are; floats with the fewest digits that read back, always with a point or an exponent.
fn number(value: &Number) -> String {
    match value.as_f64() {
        Some(float) if value.is_f64() => float_repr(float),
        _ => value.to_string(),
    }
}

fn float_repr(value: f64) -> String {
    // Rust's `{:e}` finds the same shortest digits; only the layout differs.
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let fixed = value.to_string();
        return if fixed.contains('.') { fixed } else { fixed + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// Single quotes unless the text has some and no double ones; what is not printable is escaped.
fn repr_string(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => out.push_str(&escape(u32::from(c))),
        }
    }
    out.push(quote);
    out
}

fn escape(code: u32) -> String {
    match code {
        0..=0xff => format!("\\x{code:02x}"),
        0x100..=0xffff => format!("\\u{code:04x}"),
        _ => format!("\\U{code:08x}"),
    }
}

/// Python's `str.isprintable`: no control, format, unassigned or private character, no space but U+0020.
fn is_printable(c: char) -> bool {
    use std::sync::LazyLock;
    static UNPRINTABLE: LazyLock<fancy_regex::Regex> = LazyLock::new(|| {
        fancy_regex::Regex::new(r"[\p{C}\p{Z}&&[^ ]]").expect("invariant: the constant pattern compiles")
    });
    (' '..='~').contains(&c) || !UNPRINTABLE.is_match(c.encode_utf8(&mut [0; 4])).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_python_prints() {
        // Right-hand sides are the output of CPython 3.11.
        let value = serde_json::json!({"a": [1, -2, 1.0, 0.1, 1e16, 123_456_789_012_345_680.0, 0.0001, 0.000_01, 1e-7, 1e100, 1.5e300],
                           "ü\u{7f}": "x\"\\\n\u{1}/", "n": null, "t": true, "e": {}, "l": []});
        assert_eq!(
            json(&value, Separators::SPACED),
            r#"{"a": [1, -2, 1.0, 0.1, 1e+16, 1.2345678901234568e+17, 0.0001, 1e-05, 1e-07, 1e+100, 1.5e+300], "ü"#.to_owned()
                + "\u{7f}"
                + r#"": "x\"\\\n\u0001/", "n": null, "t": true, "e": {}, "l": []}"#
        );
        assert_eq!(json(&serde_json::json!({"a": [1, "b"]}), Separators::COMPACT), r#"{"a":[1,"b"]}"#);
        let value =
            serde_json::json!({"k": ["it's", "a'\"b", "é\u{a0}\u{1}\u{200b}\u{e0001}", null, true, 2.50]});
        assert_eq!(repr(&value), r#"{'k': ["it's", 'a\'"b', 'é\xa0\x01\u200b\U000e0001', None, True, 2.5]}"#);
        assert_eq!(str(&serde_json::json!("it's")), "it's");
    }
}
