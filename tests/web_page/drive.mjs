// Does in Chromium what it is told, for another process:
//   node drive.mjs NODE_MODULES CHROMIUM
// reads lines of JSON, {"options": {...}, "steps": [[what, ...], ...]}, and answers each with one line:
// what was found, what the page wrote to its console and asked for, and the step that failed, if one
// did. Every line has a browser profile of its own.
//
// Options: script (run before the page's own), scheme ("dark"), viewport, touch, scale (pixels per
// CSS pixel), timeout (ms, of one step).

import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";

const [modules, executablePath] = process.argv.slice(2);
const { chromium } = createRequire(path.join(modules, "x.js"))("playwright-core");
const WIDE = { width: 1100, height: 760 };
const LIMIT = 60_000;

// Chromium's own software for graphics, the same on every machine.
const args = [
  "--no-sandbox",
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--enable-features=Vulkan",
  "--use-vulkan=swiftshader",
  "--ignore-gpu-blocklist",
  "--disable-gpu-sandbox",
  "--disable-gpu-watchdog",
];
const browser = await chromium.launch({ executablePath, args });

async function session({ options = {}, steps }) {
  const context = await browser.newContext({
    viewport: options.viewport ?? WIDE,
    colorScheme: options.scheme ?? "light",
    hasTouch: options.touch ?? false,
    deviceScaleFactor: options.scale ?? 1,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(options.timeout ?? LIMIT);
  if (options.script) await page.addInitScript(options.script);
  const said = [];
  const requests = [];
  page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => said.push(`pageerror: ${error}`));
  page.on("request", (request) => requests.push(request.url()));
  const found = [];
  const keep = async (value) => found.push(await value);
  const actions = {
    open: (url) => page.goto(url),
    reload: () => page.reload(),
    click: (selector) => page.click(selector),
    fill: (selector, text) => page.fill(selector, text),
    press: (selector, key) => page.press(selector, key),
    see: (selector) => page.waitForSelector(selector, { state: "visible" }),
    gone: (selector) => page.waitForSelector(selector, { state: "hidden" }),
    has: (selector, text) => page.locator(selector).filter({ hasText: text }).first().waitFor(),
    text: (selector) => keep(page.innerText(selector)),
    value: (selector) => keep(page.inputValue(selector)),
    evaluate: (expression) => keep(page.evaluate(expression)),
    screenshot: (file) => page.screenshot({ path: file, animations: "disabled" }),
    // A hook of the server, so that files change while the page is open.
    fetch: (url) => fetch(url),
  };
  let failed = null;
  for (const [number, [what, ...values]] of steps.entries()) {
    try {
      await actions[what](...values);
    } catch (error) {
      const seen = await page.innerText("body").catch(() => "");
      failed = `step ${number} (${what} ${values.join(" ")}): ${error}\n${seen}`;
      break;
    }
  }
  await context.close();
  return { found, failed, said, requests };
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await session(JSON.parse(line)))}\n`);
}
await browser.close();
