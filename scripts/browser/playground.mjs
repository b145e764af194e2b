// Drives the playground of the real binary in a headless Chromium. See README.md.
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";

import { chromium } from "playwright-core";

import { packagedChromium } from "./chromium.mjs";

const here = import.meta.dirname;
const { values: options } = parseArgs({
  options: {
    binary: { type: "string", default: path.join(here, "../../target/release/kimi-serve") },
    browser: { type: "string" },
    shots: { type: "string" },
  },
});
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const media = name => readFileSync(path.join(here, "../../crates/kimi-chat/tests/data/media", name));
const PNG = media("one_pixel.png"), MP4 = media("reordered.mp4");

/** Starts the server and waits until it is ready; returns its process and address. */
async function serve() {
  const server = spawn(options.binary, ["serve", "--port", "0", "--fake", path.join(here, "script.json")],
    { stdio: ["ignore", "pipe", "ignore"] });
  for await (const line of createInterface({ input: server.stdout })) {
    if (line.startsWith("ready: ")) return { server, url: new URL(line.slice(7)).origin };
  }
  throw new Error("the server ended before it was ready");
}

const { server, url } = await serve();
const profile = mkdtempSync(path.join(tmpdir(), "kimi-browser-"));
const program = options.browser ? { executablePath: options.browser } : await packagedChromium();
const browser = await chromium.launchPersistentContext(profile,
  { ...program, headless: true, args: FLAGS, viewport: { width: 1180, height: 800 } });
browser.setDefaultTimeout(20_000);
const page = browser.pages()[0];
const complaints = [], strangers = [], bodies = [];
page.on("console", message => { if (message.type() === "error") complaints.push(message.text()); });
page.on("pageerror", error => complaints.push(String(error)));
page.on("dialog", dialog => { complaints.push("a dialog: " + dialog.message()); dialog.dismiss(); });
page.on("request", request => {
  if (!request.url().startsWith(url) && !request.url().startsWith("data:")) strangers.push(request.url());
  if (request.method() === "POST") bodies.push(request.postDataJSON());
});
if (options.shots) mkdirSync(options.shots, { recursive: true });
const shot = async name => { if (options.shots) await page.screenshot({ path: path.join(options.shots, name + ".png") }); };

const log = page.getByRole("log", { name: "Conversation" });
const prompt = page.getByRole("textbox", { name: "Message" });
const last = () => log.locator("li.assistant").last();
const ask = async text => { await prompt.fill(text); await prompt.press("Enter"); };
const idle = () => page.getByRole("button", { name: "Send", exact: true }).waitFor();

/** A picture and a clip, as the system hands them over. */
const transfer = () => page.evaluateHandle(files => {
  const transfer = new DataTransfer();
  for (const [name, type, bytes] of files) transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
  return transfer;
}, [["dropped.png", "image/png", [...PNG]], ["clip.mp4", "video/mp4", [...MP4]]]);

const checks = {
  async "the policy is strict and the page small"() {
    const response = await page.goto(url);
    const policy = response.headers()["content-security-policy"];
    assert.match(policy, /default-src 'none'/);
    assert.ok(!policy.includes("unsafe"));
    assert.ok((await response.body()).length < 60_000);
    await page.getByText("kimi-fake · 262,144 tokens of context").waitFor();
    await shot("empty");
  },
  async "an answer streams, its thinking folded"() {
    await ask("Explain a hash map.");
    await page.getByRole("button", { name: "Stop" }).waitFor();
    await idle();
    const think = last().locator("details.think");
    assert.match(await think.locator("summary").textContent(), /^Thought for \d/);
    assert.equal(await think.getAttribute("open"), null);
    await think.locator("summary").press("Enter");
    await think.getByText("Two sentences, then code.").waitFor();
    assert.equal(await last().locator(".body pre code").textContent(), 'ages = {"Ada": 36}\nprint(ages["Ada"])');
    assert.match(await last().locator(".meta").textContent(), /\d+ tokens.*tokens\/s.*first after/);
    assert.match(await page.getByRole("status").textContent(), /^Answer: A hash map/);
    await shot("answer");
  },
  async "a tool loop"() {
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByRole("button", { name: "Insert an example" }).click();
    await shot("settings");
    await page.getByRole("button", { name: "Close" }).click();
    await ask("How is the weather in Oslo?");
    const result = page.getByRole("textbox", { name: "Result of get_weather" });
    await result.fill("12 degrees, rain");
    await shot("tools");
    await page.getByRole("button", { name: "Send result" }).click();
    await last().getByText("and it rains").waitFor();
    await idle();
    assert.deepEqual(await last().locator(".body li").allTextContents(), ["Take an umbrella", "Wear boots"]);
    const sent = bodies.at(-1).messages;
    assert.deepEqual(sent.slice(-2).map(message => message.role), ["assistant", "tool"]);
    assert.equal(sent.at(-1).tool_call_id, sent.at(-2).tool_calls[0].id);
    assert.ok(sent.at(-2).reasoning_content, "the reasoning of the loop goes back");
  },
  async "settings are sent"() {
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByLabel("System prompt").fill("Be brief.");
    await page.getByLabel("Think before answering").uncheck();
    await page.getByLabel("Temperature").fill("0.3");
    await page.getByLabel("Seed").fill("7");
    await page.keyboard.press("Escape");
    assert.equal(await page.getByLabel("Seed").isVisible(), false);
    await page.getByRole("button", { name: "New chat" }).click();
    await ask("Hello");
    await last().getByText("What can I do for you?").waitFor();
    await idle();
    const { messages, thinking, temperature, seed } = bodies.at(-1);
    assert.deepEqual({ messages, thinking, temperature, seed }, {
      messages: [{ role: "system", content: "Be brief." }, { role: "user", content: "Hello" }],
      thinking: { type: "disabled" }, temperature: 0.3, seed: 7,
    });
  },
  async "the code on screen runs"() {
    await page.getByRole("button", { name: "Code" }).click();
    const panel = page.getByRole("tabpanel");
    const curl = await panel.textContent();
    if (spawnSync("curl", ["--version"]).status === 0) {
      assert.match(execFileSync("bash", ["-c", curl.replace("curl -N", "curl -sN")], { encoding: "utf8" }), /data: \[DONE\]/);
    } else console.log("       (without running it: this machine has no curl)");
    await page.getByRole("tab", { name: "curl" }).press("ArrowRight");
    const python = await panel.textContent();
    assert.match(python, /extra_body=\{"thinking": \{"type": "disabled"\}\}/);
    execFileSync("python3", ["-c", "import ast, sys; ast.parse(sys.stdin.read())"], { input: python });
    await shot("code");
    await page.getByRole("button", { name: "Close" }).last().click();
  },
  async "stopping, breaking off, errors"() {
    await ask("Talk for ever");
    await last().getByText("and so on and so on").waitFor();
    await page.keyboard.press("Escape");
    await idle();
    assert.match(await last().locator(".meta").textContent(), /stopped/);
    await ask("Please break");
    await page.getByRole("alert").filter({ hasText: "not finite" }).waitFor();
    await idle();
    await shot("error");
  },
  async "nothing the model writes becomes markup"() {
    await ask("Show markup");
    await last().getByText("onerror").waitFor();
    await idle();
    assert.equal(await log.locator(".assistant img, .assistant script, .assistant a").count(), 0);
  },
  async "media are attached by file and by drop, and can be removed"() {
    await page.locator("#files").setInputFiles({ name: "dot.png", mimeType: "image/png", buffer: PNG });
    await page.getByRole("img", { name: "dot.png" }).waitFor();
    await page.getByRole("button", { name: "Remove dot.png" }).click();
    await page.dispatchEvent("body", "drop", { dataTransfer: await transfer() });
    await page.getByRole("button", { name: "Remove clip.mp4" }).waitFor();
    await page.getByRole("button", { name: "Remove dropped.png" }).waitFor();
    await shot("media");
    await page.getByRole("button", { name: "Code" }).click();
    const code = await page.getByRole("tabpanel").textContent();
    assert.match(code, /"data:video\/mp4;base64,\S{24}… \(Copy takes all of it\)/);
    await page.getByRole("button", { name: "Close" }).last().click();
    const problems = await log.getByRole("alert").count();
    await ask("What is this?");
    await idle();
    assert.equal(await log.getByRole("alert").count(), problems, "the server takes them");
    assert.match(await last().locator(".meta").textContent(), /\d+ in the prompt/);
    const parts = bodies.at(-1).messages.at(-1).content;
    assert.deepEqual(parts.map(part => part.type).sort(), ["image_url", "text", "video_url"]);
    assert.ok(parts.find(part => part.image_url).image_url.url.startsWith("data:image/png;base64,iVBOR"));
    await page.getByRole("button", { name: "New chat" }).click();
    await prompt.evaluate((node, clipboardData) => {
      node.dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
    }, await transfer());
    await page.getByRole("button", { name: "Remove dropped.png" }).waitFor();
    await page.getByRole("button", { name: "New chat" }).click();
  },
  async "a model that sees nothing is not shown anything"() {
    const blind = { id: "blind", context_length: 4096, supports_image_in: false, supports_video_in: false };
    await page.route("**/v1/models", route => route.fulfill({ json: { data: [blind] } }));
    await page.goto(url);
    await page.getByText("This model takes text only.").waitFor();
    assert.ok(await page.getByRole("button", { name: "Add media" }).isDisabled());
    await page.dispatchEvent("body", "drop", { dataTransfer: await transfer() });
    await page.getByRole("alert").filter({ hasText: "This model takes no images" }).waitFor();
    assert.equal(await page.locator("#attached li").count(), 0);
    await page.unroute("**/v1/models");
    await page.goto(url);
    await page.getByText("kimi-fake").first().waitFor();
  },
  async "the keyboard reaches everything, in order"() {
    await page.locator(".skip").focus();
    const names = [];
    for (let step = 0; step < 11; step++) {
      names.push(await page.evaluate(() => {
        const { id, ariaLabel, textContent } = document.activeElement;
        return id || ariaLabel || textContent;
      }));
      await page.keyboard.press("Tab");
    }
    const wanted = ["Skip to the message field", "new", "code", "toggle", "log", "prompt", "attach", "send"];
    assert.deepEqual(names.filter(name => wanted.includes(name)), wanted);
    const nameless = await page.locator("button, input:not([hidden]), textarea, a").evaluateAll(nodes =>
      nodes.filter(node => !(node.labels?.length || node.ariaLabel || node.textContent.trim())).map(node => node.outerHTML));
    assert.deepEqual(nameless, []);
  },
};

/** The least contrast of texts with what is behind them. */
async function contrast() {
  return page.evaluate(() => {
    const luminance = color => {
      const [r, g, b] = color.match(/[\d.]+/g).map(Number).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = node => {
      for (; node; node = node.parentElement) {
        const color = getComputedStyle(node).backgroundColor;
        if (color !== "rgba(0, 0, 0, 0)" && color !== "transparent") return color;
      }
      return "rgb(255, 255, 255)";
    };
    const texts = [...document.querySelectorAll("body *")].filter(node => node.checkVisibility?.() && !node.matches("script, style, :disabled, .sr")
      && [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim()));
    return texts.map(node => {
      const [a, b] = [luminance(getComputedStyle(node).color), luminance(behind(node))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), node.className || node.tagName];
    }).sort((x, y) => x[0] - y[0])[0];
  });
}
for (const [colorScheme, width] of [["light", 1180], ["dark", 1180], ["light", 390], ["dark", 390]]) {
  checks[`${colorScheme}, ${width} wide: readable and nothing cut off`] = async () => {
    await page.setViewportSize({ width, height: 800 });
    await page.emulateMedia({ colorScheme });
    await page.goto(url);
    await ask("Explain a hash map.");
    await idle();
    await last().locator("summary").click();
    const [ratio, where] = await contrast();
    assert.ok(ratio >= 4.5, `${where}: ${ratio.toFixed(2)}`);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "the page scrolls sideways");
    await shot(`${colorScheme}-${width}`);
    await page.getByRole("button", { name: "Settings" }).click();
    await shot(`${colorScheme}-${width}-settings`);
    await page.getByRole("button", { name: "Close" }).first().click();
  };
}

let failed = 0;
try {
  for (const [name, check] of Object.entries(checks)) {
    try { await check(); console.log("ok    ", name); } catch (error) {
      failed++;
      console.log("FAILED", name, "\n", error);
      await shot("failed-" + failed);
    }
  }
  // An answer that is an error status is noted by the browser itself.
  const bugs = complaints.filter(text => !/status of 400/.test(text));
  assert.deepEqual(bugs, [], "the browser complained");
  assert.deepEqual(strangers, [], "the page asked somebody else");
} catch (error) { failed++; console.log("FAILED", error); } finally {
  await browser.close();
  server.kill();
  rmSync(profile, { recursive: true, force: true });
}
process.exit(failed ? 1 : 0);
