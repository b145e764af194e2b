//! Tokens without generation: the estimate, `/tokenize` and `/detokenize`; and what the server says of itself.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::harness::{Setup, VOCABULARY, hello, hello_with, saying, tokens};

fn conversation() -> impl Strategy<Value = Value> {
    let text = "[a-zé<>|_ ]{1,12}|<\\|im_end\\|>";
    let call = (text, text).prop_map(|(id, arguments)| {
        json!([{"role": "assistant", "reasoning_content": arguments, "tool_calls": [
                {"id": id, "function": {"name": "f", "arguments": arguments}}]},
            {"role": "tool", "tool_call_id": id, "content": arguments}])
    });
    let plain = ("system|user|assistant", text)
        .prop_map(|(role, content)| json!([{"role": role, "content": content}]));
    let parts = text
        .prop_map(|text| json!([{"role": "user", "name": "n", "content": [{"type": "text", "text": text}]}]));
    let turns = proptest::collection::vec(prop_oneof![call, plain, parts], 1..6);
    let flags = proptest::array::uniform4(proptest::bool::ANY);
    (turns, flags, text).prop_map(|(turns, [tools, thinks, keep, partial], description)| {
        let mut messages: Vec<Value> =
            turns.iter().flat_map(|turn| turn.as_array().unwrap().clone()).collect();
        if partial {
            messages.push(json!({"role": "assistant", "content": "So", "partial": true}));
        }
        let tools = if tools {
            json!([{"type": "function", "function": {"name": "f", "description": description, "parameters":
                {"type": "object", "properties": {"x": {"type": "string", "enum": ["a"]}}}}}])
        } else {
            json!(null)
        };
        json!({"model": "kimi-k2.6", "messages": messages, "tools": tools, "max_tokens": 3,
            "thinking": {"type": if thinks { "enabled" } else { "disabled" }, "keep": keep.then_some("all")}})
    })
}

#[test]
fn the_estimate_is_what_the_usage_says() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let server = runtime.block_on(Setup::new(saying("</think>ok<|im_end|>")).serve());
    let mut proptest = TestRunner::new(ProptestConfig { cases: 150, ..ProptestConfig::default() });
    let outcome = proptest.run(&conversation(), |body| {
        let (status, answer) = runtime.block_on(server.chat(&body));
        prop_assert_eq!(status, 200, "{}", answer);
        let used = &answer["usage"]["prompt_tokens"];
        let estimate = runtime.block_on(server.post_json("/v1/tokenizers/estimate-token-count", &body));
        prop_assert_eq!(estimate, (200, json!({"data": {"total_tokens": used}})));
        let (_, tokenized) = runtime.block_on(server.post_json("/tokenize", &body));
        prop_assert_eq!(&tokenized["count"], used);
        Ok(())
    });
    outcome.unwrap();
}

#[tokio::test]
async fn estimates_refuse_what_the_chat_route_refuses() {
    let server = Setup::new(saying("</think>ok<|im_end|>")).serve().await;
    for extra in [
        json!({"model": "gpt-4"}),
        json!({"messages": []}),
        json!({"messages": [{"role": "tool", "tool_call_id": "x", "content": "1"}]}),
        json!({"tools": [{"type": "function", "function": {"name": "1"}}]}),
        json!({"messages": 7}),
    ] {
        let body = hello_with(extra);
        assert_eq!(
            server.post_json("/v1/tokenizers/estimate-token-count", &body).await,
            server.chat(&body).await
        );
    }
}

#[tokio::test]
async fn text_becomes_tokens_and_tokens_become_text() {
    let server = Setup::new(saying("ok")).serve().await;
    let tokenize = async |body: Value| server.post_json("/tokenize", &body).await;
    let spelled = "<|im_user|>aé";
    let (status, answer) = tokenize(json!({"prompt": spelled, "return_token_strs": true})).await;
    let lossy = "\u{FFFD}";
    assert_eq!(status, 200);
    assert_eq!(
        answer,
        json!({"count": 4, "max_model_len": 4096, "tokens": tokens(spelled),
            "token_strs": ["<|im_user|>", "a", lossy, lossy]})
    );
    let (_, detokenized) = server.post_json("/detokenize", &json!({"tokens": answer["tokens"]})).await;
    assert_eq!(detokenized, json!({"prompt": spelled}));
    let (_, plain) =
        tokenize(json!({"prompt": "<think>", "parse_special": false, "add_special_tokens": true})).await;
    assert_eq!(
        plain,
        json!({"count": 7, "max_model_len": 4096, "tokens": VOCABULARY.encode_text("<think>"), "token_strs": null})
    );
    assert_eq!(tokenize(json!({"prompt": ""})).await.1["count"], 0);

    let opened = "<|im_user|>user<|im_middle|>Hi<|im_end|><|im_assistant|>assistant<|im_middle|>";
    let chat = async |extra: Value| {
        let mut body = json!({"messages": hello()["messages"]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        tokenize(body).await.1["tokens"].clone()
    };
    assert_eq!(chat(json!({})).await, json!(tokens(&format!("{opened}<think>"))));
    let closed = "<|im_user|>user<|im_middle|>Hi<|im_end|>";
    assert_eq!(chat(json!({"add_generation_prompt": false})).await, json!(tokens(closed)));
    let instant = json!({"chat_template_kwargs": {"thinking": false}});
    assert_eq!(chat(instant).await, json!(tokens(&format!("{opened}<think></think>"))));
    let begun = json!({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "So"}],
        "continue_final_message": true, "add_generation_prompt": false});
    assert_eq!(chat(begun).await, json!(tokens(&format!("{opened}<think></think>So"))));

    for (path, body, message) in [
        ("/tokenize", json!({}), "Invalid request: give either prompt or messages"),
        (
            "/tokenize",
            json!({"prompt": "a", "messages": []}),
            "Invalid request: give either prompt or messages",
        ),
        ("/tokenize", json!({"messages": []}), "Invalid request: messages must not be empty"),
        (
            "/detokenize",
            json!({"tokens": [1, 4_000_000_000_u32]}),
            "Invalid request: tokens has the token id 4000000000; this model's ids are below 512",
        ),
    ] {
        let (status, answer) = server.post_json(path, &body).await;
        assert_eq!((status, &answer["error"]["message"]), (400, &json!(message)), "{path} {body}");
    }
    assert_eq!(server.post_json("/detokenize", &json!({"model": "gpt-4", "tokens": []})).await.0, 404);
    let large = json!({"prompt": "x".repeat(2 << 20)});
    assert_eq!(server.post_json("/tokenize", &large).await.0, 413);
}

#[tokio::test]
async fn the_server_tells_its_load_and_a_balance_of_nothing() {
    let server =
        Setup::new(saying("</think>aaaa").with_step_time(std::time::Duration::from_millis(10))).serve().await;
    let request = tokio::spawn(server.post(&hello_with(json!({"n": 2}))).send());
    server.wait_for_running(2).await;
    let (status, load) = server.get_json("/load").await;
    assert_eq!((status, &load["server_load"], &load["running"]), (200, &json!(2), &json!(2)));
    request.abort();
    assert_eq!(
        server.get_json("/v1/users/me/balance").await,
        (
            200,
            json!({"code": 0, "data": {"available_balance": 0.0, "voucher_balance": 0.0, "cash_balance": 0.0},
                "scode": "0x0", "status": true})
        )
    );
}
