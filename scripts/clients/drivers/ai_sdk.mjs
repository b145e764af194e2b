// Vercel's AI SDK, through its OpenAI-compatible and its Moonshot provider. Usage: ai_sdk.mjs ORIGIN PROVIDER
import assert from "node:assert/strict";
import { baseURL, capital, extract, model as name, run, weatherQuestion, weatherResult } from "./checks.mjs";
import { createMoonshotAI } from "@ai-sdk/moonshotai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

globalThis.AI_SDK_LOG_WARNINGS = false;
const provider =
  process.argv[3] === "moonshotai"
    ? createMoonshotAI({ baseURL, apiKey: "any" })
    : createOpenAICompatible({ name: "kimi", baseURL, apiKey: "any", supportsStructuredOutputs: true });
const common = { model: provider(name), temperature: 0, maxRetries: 0 };

await run({
  async chat() {
    const { text, reasoningText } = await generateText({ ...common, prompt: capital });
    assert.match(text, /Paris/);
    assert.ok(reasoningText);
  },
  async stream() {
    const whole = await generateText({ ...common, prompt: capital });
    const streamed = streamText({ ...common, prompt: capital });
    let text = "";
    for await (const piece of streamed.textStream) text += piece;
    assert.equal(text, whole.text);
  },
  async tools() {
    const asked = [];
    const get_weather = tool({
      description: "Get the current weather in a location.",
      inputSchema: z.object({ location: z.string().describe("City name") }),
      execute: async ({ location }) => {
        asked.push(location);
        return JSON.parse(weatherResult);
      },
    });
    const prompt = weatherQuestion;
    const { text } = await generateText({ ...common, prompt, tools: { get_weather }, stopWhen: stepCountIs(4) });
    assert.deepEqual(asked, ["Tokyo"]);
    assert.match(text, /22/);
  },
  async structured() {
    const schema = z.object({ name: z.string(), age: z.number() });
    const { output } = await generateText({ ...common, prompt: extract, output: Output.object({ schema }) });
    schema.parse(output);
  },
});
