// Drives a browser for another process. Started as
//   node driver.mjs NODE_MODULES BROWSER ARGUMENTS
// with ARGUMENTS, a JSON list, for the browser. Reads one JSON object a line from its input,
// answers with one a line on its output, and closes the browser when its input ends.

import { createRequire } from "node:module";
import path from "node:path";
import readline from "node:readline";

const [modules, browserPath, argumentsText] = process.argv.slice(2);
const { chromium } = createRequire(path.join(modules, "x.js"))("playwright-core");

let browser;
let page;
const messages = [];

const operations = {
  async launch() {
    // The profile is a new folder that goes with the browser.
    browser = await chromium.launch({
      executablePath: browserPath,
      headless: true,
      args: JSON.parse(argumentsText),
    });
    return { version: browser.version() };
  },
  async visit({ url }) {
    page = await browser.newPage();
    page.on("console", (message) => messages.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => messages.push(`error: ${error.message}`));
    page.on("crash", () => messages.push("error: the page crashed"));
    page.on("requestfailed", (request) =>
      messages.push(`error: ${request.url()} (${request.failure()?.errorText})`),
    );
    page.on("response", (response) => {
      if (response.status() >= 400)
        messages.push(`error: ${response.url()} (status ${response.status()})`);
    });
    await page.goto(url);
    await page.waitForFunction("window.ready");
    return null;
  },
  run: ({ operation_in_page: operation, argument }) =>
    page.evaluate(([name, value]) => window.run(name, value), [operation, argument]),
  async screenshot({ file }) {
    await page.screenshot({ path: file });
    return null;
  },
};

async function answer({ operation, timeout_seconds: limit, ...rest }) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer in ${limit} s`)), limit * 1000);
  });
  const crashed = page
    ? page.waitForEvent("crash", { timeout: 0 }).then(() => {
        throw new Error("the page crashed");
      })
    : new Promise(() => {});
  crashed.catch(() => {}); // it may lose the race
  try {
    const value = await Promise.race([operations[operation](rest), late, crashed]);
    return { ok: true, value };
  } catch (error) {
    return { ok: false, message: String(error.message ?? error) };
  } finally {
    clearTimeout(timer);
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const reply = await answer(JSON.parse(line));
  process.stdout.write(`${JSON.stringify({ ...reply, messages: messages.splice(0) })}\n`);
}
await browser?.close();
process.exit(0);
