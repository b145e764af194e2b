//! Answers that continue what the client began: every shape of partial mode, in every spelling.

use serde_json::{Value, json};

use crate::harness::{Setup, hello_with, saying, tokens};

/// The messages after which the model continues `last`.
fn after(mut last: Value, spelling: Spelling) -> Value {
    let mut body = json!({});
    match spelling {
        Spelling::Partial => last["partial"] = json!(true),
        Spelling::Continue => {
            body = json!({"continue_final_message": true, "add_generation_prompt": false});
        }
    }
    body["messages"] = json!([{"role": "user", "content": "Hi"}, last]);
    body["return_token_ids"] = json!(true);
    hello_with(body)
}

#[derive(Clone, Copy)]
enum Spelling {
    Partial,
    Continue,
}

#[tokio::test]
async fn the_prefix_decides_where_the_answer_begins() {
    let server = Setup::new(saying("x</think>y<|im_end|>")).serve().await;
    let opened = "<|im_user|>user<|im_middle|>Hi<|im_end|><|im_assistant|>assistant<|im_middle|>";
    let named = opened.replace("assistant<|im_middle|>", "Kimi<|im_middle|>");
    let thinking = json!({"role": "assistant", "content": "y", "reasoning_content": "x"});
    let content = json!({"role": "assistant", "content": "xy"});
    let cases = [
        (json!({"content": "So"}), format!("{opened}<think></think>So"), &content),
        (json!({"content": "So", "name": "Kimi"}), format!("{named}<think></think>So"), &content),
        (json!({"content": "So", "reasoning_content": "R"}), format!("{opened}<think>R</think>So"), &content),
        (json!({"content": "", "reasoning_content": "R"}), format!("{opened}<think>R"), &thinking),
        (json!({"content": null, "reasoning": "R"}), format!("{opened}<think>R"), &thinking),
        (json!({"content": ""}), format!("{opened}<think>"), &thinking),
        (json!({}), format!("{opened}<think>"), &thinking),
    ];
    for (mut last, prompt, message) in cases {
        last["role"] = json!("assistant");
        for spelling in [Spelling::Partial, Spelling::Continue] {
            let (status, answer) = server.chat(&after(last.clone(), spelling)).await;
            assert_eq!(status, 200, "{last}: {answer}");
            assert_eq!(answer["prompt_token_ids"], json!(tokens(&prompt)), "{last}");
            assert_eq!(&answer["choices"][0]["message"], message, "{last}: only the continuation");
        }
    }
    let mut instant = after(json!({"role": "assistant"}), Spelling::Partial);
    instant["thinking"] = json!({"type": "disabled"});
    let (_, answer) = server.chat(&instant).await;
    assert_eq!(answer["prompt_token_ids"], json!(tokens(&format!("{opened}<think></think>"))));
}

#[tokio::test]
async fn what_cannot_be_continued_is_refused() {
    let server = Setup::new(saying("</think>ok<|im_end|>")).serve().await;
    let user = json!({"role": "user", "content": "Hi"});
    let said = json!({"role": "assistant", "content": "So"});
    let begun = json!({"role": "assistant", "content": "So", "partial": true});
    let call = json!({"role": "assistant", "partial": true,
        "tool_calls": [{"id": "functions.f:0", "function": {"name": "f", "arguments": "{}"}}]});
    let cases = [
        (
            json!({"messages": [begun, user]}),
            "Invalid request: message 0 has partial: true; only the last message, with role assistant, can be partial",
        ),
        (
            json!({"messages": [{"role": "user", "content": "Hi", "partial": true}]}),
            "Invalid request: message 0 has partial: true; only the last message, with role assistant, can be partial",
        ),
        (
            json!({"messages": [user, call]}),
            "Invalid request: message 1 has partial: true and tool_calls; a partial message continues text: remove one \
             of them",
        ),
        (
            json!({"messages": [user], "continue_final_message": true, "add_generation_prompt": false}),
            "Invalid request: continue_final_message: true needs a last message with role 'assistant'",
        ),
        (
            json!({"messages": [user, said], "continue_final_message": true, "add_generation_prompt": true}),
            "Invalid request: continue_final_message and add_generation_prompt cannot both be true",
        ),
        (
            json!({"messages": [user, said], "add_generation_prompt": false}),
            "Invalid request: add_generation_prompt: false needs continue_final_message: true, since the model must have \
             something to continue",
        ),
    ];
    for (body, message) in cases {
        let (status, answer) = server.chat(&hello_with(body.clone())).await;
        assert_eq!((status, &answer["error"]["message"]), (400, &json!(message)), "{body}");
    }
    let fine = hello_with(json!({"messages": [user, said], "add_generation_prompt": true}));
    assert_eq!(server.chat(&fine).await.0, 200, "the model's next message may follow its last");
}
