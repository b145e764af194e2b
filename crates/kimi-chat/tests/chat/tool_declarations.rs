//! Tool declarations against what the reference encoder printed.

use kimi_api::Tool;
use kimi_chat::{Conversation, in_reading_order, render};
use serde_json::{Value, json};

use crate::support::bytes_only;

/// The declaration inside its message.
fn declare(tools: &Value) -> String {
    let tools: Vec<Tool> = serde_json::from_value(tools.clone()).expect("tools");
    let conversation = Conversation {
        messages: Vec::new(),
        tools,
        thinking: true,
        preserve_thinking: false,
        add_generation_prompt: false,
    };
    let (vocabulary, markers) = bytes_only();
    let prompt = render(&conversation, vocabulary, markers).expect("renders");
    let body = prompt.strip_prefix("<|im_system|>tool_declare<|im_middle|>").expect("the header");
    body.strip_suffix("<|im_end|>").expect("the end").to_owned()
}

fn function(parameters: &Value) -> Value {
    json!([{"type": "function", "function": {"name": "f", "parameters": parameters}}])
}

#[test]
fn equal_the_reference_on_every_golden() {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("../data/tool_declaration_golden.json")).expect("JSON");
    assert_eq!(cases.len(), 16);
    for case in cases {
        let typescript = case["typescript"].as_str().filter(|text| !text.is_empty());
        let expected = typescript.or(case["json_fallback"].as_str()).expect("one of the forms");
        assert_eq!(declare(&case["tools"]), expected, "{}", case["case"]);
    }
}

/// The reference's longest printed sample: definitions, nested comments, unions, defaults, extra properties.
#[test]
fn equal_the_reference_on_everything_at_once() {
    let tools = json!([
        {"type": "function", "function": {"strict": true, "name": "f", "description": "Multi\nline", "parameters": {
            "type": "object", "additionalProperties": false, "required": ["tags", "p"],
            "$defs": {"P": {"type": "object", "description": "point", "required": ["x"],
                            "properties": {"y": {"type": "number", "default": 0.5}, "x": {"type": "integer"}}}},
            "properties": {
                "u": {"type": ["string", "null"]}, "p": {"$ref": "#/$defs/P"},
                "tags": {"type": "array", "minItems": 1,
                         "items": {"type": "string", "description": "a tag", "maxLength": 5}},
                "any": {"anyOf": [{"type": "string"}, {"type": "number"}]},
                "flag": {"type": "boolean", "default": true},
                "m": {"type": "object", "additionalProperties": {"type": "string"}}, "o": {"type": "object"}}}}},
        {"type": "function", "function": {"name": "noargs", "parameters": {}}}
    ]);
    let expected = "# Tools\n\n## functions\nnamespace functions {\n// point\ninterface P {\n  x: number,\n  // Default: 0.5\n  \
        y?: number\n}\n// Multi\n// line\ntype f = (_: {\n  p: P,\n  // minItems: 1\n  tags: Array<\n    // a tag\n    \
        // maxLength: 5\n    string\n  >,\n  any?: string | number,\n  // Default: True\n  flag?: boolean,\n  m?: {\n    \
        [k: string]: string\n  },\n  o?: {},\n  u?: string | null,\n  [k: string]: never\n}) => any;\n\
        type noargs = (_: {}) => any;\n}\n";
    assert_eq!(declare(&tools), expected);
}

#[test]
fn a_schema_may_refer_to_its_root() {
    let tree = json!({"type": "object", "required": ["value"], "properties": {
        "left": {"$ref": "#", "description": "Smaller"}, "value": {"type": "integer"}}});
    let expected = "# Tools\n\n## functions\nnamespace functions {\ninterface parameters {\n  // Smaller\n  \
        left?: parameters,\n  value: number\n}\ntype f = (_: parameters) => any;\n}\n";
    assert_eq!(declare(&function(&tree)), expected);
}

/// One schema TypeScript cannot say turns the whole list into JSON, sorted at every depth.
#[test]
fn what_cannot_be_said_falls_back_to_json() {
    let property = |schema: Value| json!({"type": "object", "properties": {"z": schema}});
    let inexpressible = [
        property(json!({"allOf": [{"type": "string"}]})),
        property(json!({"description": "no type"})),
        property(json!({"type": {"b": 1}})),
        property(json!({"type": ["string", "file"]})),
        property(json!({"enum": ["a"], "type": "integer"})),
        property(json!({"enum": [1.5], "type": "integer"})),
        property(json!({"enum": [null, 1], "type": ["string", "integer"]})),
        property(json!({"$ref": "#/definitions/X"})),
        property(json!({"$ref": "#/$defs/Missing"})),
        property(json!({"type": "object", "additionalProperties": "yes"})),
        property(json!({"type": "string", "description": 7})),
        property(json!("string")),
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": null}),
        json!({"type": "object", "properties": null}),
        json!(["not an object"]),
    ];
    for parameters in inexpressible {
        let fallback = declare(&function(&parameters));
        assert!(
            fallback.starts_with("[{\"function\":{\"name\":\"f\",\"parameters\":"),
            "{parameters}: {fallback}"
        );
        assert_eq!(serde_json::from_str::<Value>(&fallback).expect("JSON"), function(&parameters));
    }
    let expressible = [
        property(json!({})),
        property(json!(true)),
        property(json!({"enum": [true, null], "type": ["boolean", "null"]})),
        property(json!({"type": "string", "description": null})),
        json!(null),
    ];
    for parameters in expressible {
        assert!(declare(&function(&parameters)).starts_with("# Tools"), "{parameters}");
    }
    let unsorted = json!([{"type": "function", "function": {"parameters": {"b": [{"d": 1, "c": 1.0}], "allOf": [], "a": "é"},
        "name": "f", "x": 0}}, {"type": "builtin_function", "function": {"name": "$b"}}]);
    // The first is sayable (its unknown keys are ignored), so the second is skipped.
    assert_eq!(
        declare(&unsorted),
        "# Tools\n\n## functions\nnamespace functions {\ntype f = (_: {}) => any;\n}\n"
    );
    let both = json!([unsorted[0], {"type": "function", "function": {"name": "g", "parameters": property(json!({"x": 1}))}}]);
    assert_eq!(
        declare(&both),
        r#"[{"function":{"name":"f","parameters":{"a":"é","allOf":[],"b":[{"c":1.0,"d":1}]},"x":0},"type":"function"},{"function":{"name":"g","parameters":{"properties":{"z":{"x":1}},"type":"object"}},"type":"function"}]"#
    );
}

/// Values in comments and enums are printed as Python prints them.
#[test]
fn values_are_spelled_in_python() {
    let schema = json!({"type": "object", "properties": {
        "a": {"type": "number", "maximum": 1e16, "minimum": 0.000_01, "default": 2.0},
        "b": {"enum": ["x\"y", 1, 2.0, true, null, ["it's"]]},
        "c": {"type": "string", "pattern": "^\\d+$", "minLength": null},
        "d": {"type": "object", "default": {"k": [1.0, "é"]}}, "e": {"default": null}}});
    let mut schema = schema;
    schema["properties"]["e"]["type"] = json!("file");
    let expected = "# Tools\n\n## functions\nnamespace functions {\ntype f = (_: {\n  // maximum: 1e+16, minimum: 1e-05\n  \
        // Default: 2.0\n  a?: number,\n  b?: \"x\"y\" | 1 | 2.0 | True | None | [\"it's\"],\n  \
        // minLength: None, pattern: ^\\d+$\n  c?: string,\n  // Default: {\"k\": [1.0, \"é\"]}\n  d?: {},\n  \
        e?: file\n}) => any;\n}\n";
    assert_eq!(declare(&function(&schema)), expected);
}

/// The order in which arguments are declared is the order in which they can be asked for.
#[test]
fn the_reading_order_is_the_declared_one() {
    let schema = json!({"type": "object", "required": ["zoom", "city"], "properties": {
        "unit": {"type": "string"}, "zoom": {"type": "integer"}, "at": {"type": "object", "required": ["down"],
            "properties": {"across": {"type": "number"}, "down": {"type": "number"}}}, "city": {"type": "string"}}});
    let ordered = in_reading_order(&schema);
    assert_eq!(ordered, schema, "only the order differs");
    let names =
        |object: &Value| object["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ordered), ["city", "zoom", "at", "unit"]);
    assert_eq!(names(&ordered["properties"]["at"]), ["down", "across"]);
    let text = declare(&function(&schema));
    let places =
        ["city:", "zoom:", "at?:", "down:", "across?:", "unit?:"].map(|name| text.find(name).unwrap());
    assert!(places.is_sorted(), "{text}");
}
