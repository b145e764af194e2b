//! What lies on the wire: JSON in, JSON out.

use kimi_api::{
    AnswerMessage, Arguments, ChatChoice, ChatCompletion, ChatCompletionChunk, ChatCompletionRequest,
    ChatMessage, ChunkChoice, Content, Delta, ErrorBody, ErrorDetail, FinishReason, FunctionCall,
    FunctionDelta, Part, Role, ThinkingKeep, ThinkingKind, Tool, ToolCall, ToolCallDelta, ToolCallKind,
    ToolChoice, Usage,
};
use serde_json::{Value, from_value, json, to_string, to_value};

fn message(value: Value) -> ChatMessage {
    from_value(value).expect("a valid message")
}

fn refused<T: serde::de::DeserializeOwned + std::fmt::Debug>(value: Value) -> String {
    from_value::<T>(value).expect_err("must be refused").to_string()
}

#[test]
fn null_is_the_same_as_absent() {
    let bare = message(json!({"role": "assistant"}));
    let nulls = message(json!({"role": "assistant", "content": null, "name": null, "tool_calls": null,
        "tool_call_id": null, "reasoning_content": null, "reasoning": null, "partial": null, "tools": null,
        "provider_specific_fields": {"x": 1}}));
    assert_eq!(bare, nulls);
    assert_eq!(to_value(&nulls).unwrap(), json!({"role": "assistant"}));

    let request: ChatCompletionRequest = from_value(json!({"model": "m", "messages": []})).unwrap();
    let every_null = json!({"model": "m", "messages": [], "max_tokens": null, "temperature": null, "stop": null,
        "stream": null, "stream_options": null, "tools": null, "tool_choice": null, "thinking": null, "logit_bias": null,
        "stop_token_ids": null, "functions": null, "agent": null, "response_format": null, "an_unknown_key": 1});
    assert_eq!(request, from_value(every_null).unwrap());
}

#[test]
fn reasoning_has_two_names_and_the_first_that_is_not_null_counts() {
    assert_eq!(message(json!({"role": "assistant", "reasoning_content": "a"})).thoughts(), Some("a"));
    let both = message(json!({"role": "assistant", "reasoning_content": "a", "reasoning": "b"}));
    assert_eq!(both.thoughts(), Some("b"));
    let null_first = message(json!({"role": "assistant", "reasoning": null, "reasoning_content": "a"}));
    assert_eq!(null_first.thoughts(), Some("a"));
}

#[test]
fn content_is_text_or_parts_and_parts_keep_their_kind() {
    let parts = message(json!({"role": "developer", "content": [
        {"text": "a", "type": "text"},
        {"type": "image_url", "image_url": "data:x"},
        {"type": "image_url", "image_url": {"detail": "low", "url": "ms://1"}},
        {"type": "input_audio", "input_audio": {}}]}));
    assert_eq!(parts.role, Role::System);
    let Some(Content::Parts(parts)) = parts.content else { panic!("parts expected") };
    assert_eq!(parts[0], Part::Text { text: "a".into() });
    assert!(matches!(&parts[1], Part::ImageUrl { image_url } if image_url.url == "data:x"));
    assert!(matches!(&parts[2], Part::ImageUrl { image_url } if image_url.url == "ms://1"));
    assert_eq!(parts[3], Part::Other { kind: "input_audio".into() });
    assert_eq!(to_value(&parts[2]).unwrap(), json!({"type": "image_url", "image_url": {"url": "ms://1"}}));
    assert!(Content::Parts(vec![Part::Text { text: String::new() }]).is_empty());
    assert!(refused::<Content>(json!(7)).contains("expected a string or an array of content parts"));
}

#[test]
fn tool_calls_take_arguments_as_text_or_object() {
    let call: ToolCall = from_value(json!({"id": "functions.f:0", "index": 0,
        "function": {"name": "f", "arguments": "{\"a\": 1}"}}))
    .unwrap();
    assert_eq!(call.kind, ToolCallKind::Function);
    assert_eq!(call.function.arguments, Arguments::Text("{\"a\": 1}".into()));
    let call: ToolCall =
        from_value(json!({"id": null, "function": {"name": "f", "arguments": {"z": 1, "a": 2}}})).unwrap();
    let Arguments::Object(object) = &call.function.arguments else { panic!("object expected") };
    assert_eq!(object.keys().collect::<Vec<_>>(), ["z", "a"], "the order of keys is the client's");
    assert!(refused::<FunctionCall>(json!({"name": "f", "arguments": [1]})).contains("arguments"));
}

#[test]
fn a_tool_keeps_its_declaration_in_order() {
    let declaration = json!({"type": "function", "x-extra": 1,
        "function": {"parameters": {"type": "object", "properties": {"z": {}, "a": {}}}, "name": "f"}});
    let tool: Tool = from_value(declaration.clone()).unwrap();
    assert_eq!(tool.function.name, "f");
    assert_eq!(to_string(&tool).unwrap(), declaration.to_string());
    assert!(refused::<Tool>(json!({"type": "widget", "function": {"name": "f"}})).contains("widget"));
}

#[test]
fn tool_choice_spellings() {
    assert_eq!(from_value::<ToolChoice>(json!("auto")).unwrap(), ToolChoice::Auto);
    assert_eq!(
        from_value::<ToolChoice>(json!({"type": "function", "function": {"name": "f"}})).unwrap(),
        ToolChoice::Function("f".into())
    );
    assert!(refused::<ToolChoice>(json!("sometimes")).contains("sometimes"));
    assert!(refused::<ToolChoice>(json!({"type": "function"})).contains("function"));
}

#[test]
fn thinking_refuses_unknown_values_and_keeps_unknown_keys() {
    let request: ChatCompletionRequest = from_value(json!({"model": "m", "messages": [], "stop": "x",
        "thinking": {"type": "enabled", "keep": "all", "depth": 3}}))
    .unwrap();
    let thinking = request.thinking.unwrap();
    assert_eq!((thinking.kind, thinking.keep), (ThinkingKind::Enabled, Some(ThinkingKeep::All)));
    assert_eq!(thinking.unknown.keys().collect::<Vec<_>>(), ["depth"]);
    assert_eq!(request.stop.unwrap().0, ["x"]);
    for bad in [json!({"type": "on"}), json!({"keep": "all"}), json!({"type": "enabled", "keep": "some"})] {
        refused::<kimi_api::Thinking>(bad);
    }
}

#[test]
fn a_whole_answer() {
    let call = ToolCall {
        id: "functions.f:0".into(),
        kind: ToolCallKind::Function,
        function: FunctionCall { name: "f".into(), arguments: Arguments::Text("{}".into()) },
    };
    let answer = ChatCompletion {
        id: "chatcmpl-1".into(),
        object: ChatCompletion::OBJECT,
        created: 5,
        model: "kimi-k2.6".into(),
        choices: vec![ChatChoice {
            index: 0,
            message: AnswerMessage {
                role: Role::Assistant,
                content: String::new(),
                reasoning_content: Some("hm".into()),
                reasoning: None,
                tool_calls: vec![call],
            },
            logprobs: None,
            finish_reason: FinishReason::ToolCalls,
            token_ids: None,
        }],
        usage: Usage::new(3, 2, 1, 1),
        prompt_token_ids: None,
    };
    assert_eq!(
        to_value(&answer).unwrap(),
        json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 5, "model": "kimi-k2.6",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "", "reasoning_content": "hm",
                "tool_calls": [{"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
                "finish_reason": "tool_calls"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cached_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 1}}})
    );
}

#[test]
fn chunks_say_only_what_is_new() {
    let chunk = |choices: &[ChunkChoice<'_>], usage| {
        let chunk = ChatCompletionChunk {
            id: "c",
            object: ChatCompletionChunk::OBJECT,
            created: 5,
            model: "m",
            choices,
            usage,
            prompt_token_ids: None,
        };
        to_string(&chunk).unwrap()
    };
    let head = r#"{"id":"c","object":"chat.completion.chunk","created":5,"model":"m","#;
    let text =
        ChunkChoice { delta: Delta { content: Some("x"), ..Delta::default() }, ..ChunkChoice::default() };
    assert_eq!(
        chunk(&[text], None),
        format!(r#"{head}"choices":[{{"index":0,"delta":{{"content":"x"}},"finish_reason":null}}]}}"#)
    );
    let more = ToolCallDelta {
        index: 1,
        function: FunctionDelta { name: None, arguments: "{" },
        ..ToolCallDelta::default()
    };
    let more = ChunkChoice {
        delta: Delta { tool_calls: Some([more]), ..Delta::default() },
        ..ChunkChoice::default()
    };
    assert_eq!(
        chunk(&[more], Some(None)),
        format!(
            r#"{head}"choices":[{{"index":0,"delta":{{"tool_calls":[{{"index":1,"function":{{"arguments":"{{"}}}}]}},"finish_reason":null}}],"usage":null}}"#
        )
    );
    assert!(
        chunk(&[], Some(Some(Usage::default())))
            .starts_with(&format!(r#"{head}"choices":[],"usage":{{"prompt"#))
    );
}

#[test]
fn an_error_has_a_code_only_when_it_has_one() {
    let error = |code| ErrorBody {
        error: ErrorDetail { message: "no".into(), kind: "invalid_request_error".into(), code },
    };
    assert_eq!(
        to_value(error(None)).unwrap(),
        json!({"error": {"message": "no", "type": "invalid_request_error"}})
    );
    assert_eq!(to_value(error(Some("c".into()))).unwrap()["error"]["code"], "c");
}
