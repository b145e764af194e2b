// What a user of OpenAI's Node SDK does, with only `baseURL` changed. Usage: node openai_node.mjs BASE_URL
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "any", maxRetries: 0 });
const request = {
  model: "kimi-k2.6",
  messages: [{ role: "user", content: "What is the capital of France?" }],
  temperature: 0,
};

const whole = await client.chat.completions.create(request);
const message = whole.choices[0].message;
assert.match(message.content, /Paris/);
assert.ok(message.reasoning_content);
console.log("ok node whole");

const order = [];
let content = "";
for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) {
  const delta = chunk.choices[0]?.delta ?? {};
  for (const field of ["reasoning_content", "content"]) {
    if (delta[field] && order.at(-1) !== field) order.push(field);
  }
  content += delta.content ?? "";
}
assert.deepEqual(order, ["reasoning_content", "content"]);
assert.equal(content, message.content);
console.log("ok node streamed = whole");

await assert.rejects(client.chat.completions.create({ ...request, model: "gpt-4" }), OpenAI.NotFoundError);
console.log("ok node errors");
