// OpenAI's Node SDK, chat completions.
import assert from "node:assert/strict";
import { baseURL, capital, extract, model, run, weatherQuestion, weatherResult, weatherSchema } from "./checks.mjs";
import OpenAI from "openai";

const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });
const weather = { name: "get_weather", description: "Get the current weather in a location.", parameters: weatherSchema };
const tools = [{ type: "function", function: weather }];
const ask = (messages, options) => client.chat.completions.create({ model, messages, temperature: 0, ...options });
const user = (content) => [{ role: "user", content }];

await run({
  async chat() {
    const { message } = (await ask(user(capital))).choices[0];
    assert.match(message.content, /Paris/);
    assert.ok(message.reasoning_content);
  },
  async stream() {
    const whole = (await ask(user(capital))).choices[0].message.content;
    let text = "";
    for await (const chunk of await ask(user(capital), { stream: true })) text += chunk.choices[0].delta.content ?? "";
    assert.equal(text, whole);
  },
  async tools() {
    const messages = user(weatherQuestion);
    const { message } = (await ask(messages, { tools })).choices[0];
    const call = message.tool_calls[0];
    assert.equal(JSON.parse(call.function.arguments).location, "Tokyo");
    messages.push(message, { role: "tool", tool_call_id: call.id, content: weatherResult });
    assert.match((await ask(messages, { tools })).choices[0].message.content, /22/);
  },
  async structured() {
    const schema = {
      type: "object",
      properties: { name: { type: "string" }, age: { type: "integer" } },
      required: ["name", "age"],
      additionalProperties: false,
    };
    const response_format = { type: "json_schema", json_schema: { name: "person", strict: true, schema } };
    const answer = await client.chat.completions.parse({ model, messages: user(extract), temperature: 0, response_format });
    assert.deepEqual(Object.keys(answer.choices[0].message.parsed).sort(), ["age", "name"]);
  },
});
