// Runs WebLLM beside the page, so that the page stays responsive. One worker has one model: to load
// another, the page ends this worker, which frees all memory on the GPU.

import { log } from "./log.js";
import { MLCEngine } from "../web-llm/index.js";
import { Failure, toData } from "./failure.js";
import { download } from "./files.js";
import { watchDevices } from "./watch.js";

const engine = new MLCEngine();
let model;

watchDevices((problem) => postMessage({ type: "device", problem }));

addEventListener("message", async ({ data }) => {
  try {
    if (data.type === "load") await load(data);
    else if (data.type === "ask") await ask(data.request);
    else if (data.type === "stop") await engine.interruptGenerate();
  } catch (error) {
    postMessage({ type: "failed", error: { ...toData(error), log } });
  }
});

async function load({ model: chosen, appConfig }) {
  model = chosen;
  let last = 0;
  await download(model, (done, total, file) => {
    const now = performance.now();
    if (now - last < 50 && done !== total) return; // a message for every packet would be too many
    last = now;
    postMessage({ type: "progress", phase: "download", done, total, file });
  });
  postMessage({ type: "progress", phase: "begin" });
  engine.setAppConfig(appConfig);
  engine.setInitProgressCallback(({ progress, text }) => {
    postMessage({ type: "progress", phase: phaseOf(text), done: progress, total: 1, text });
  });
  await engine.reload(model.record.model_id);
  postMessage({ type: "loaded" });
}

function phaseOf(text) {
  if (text.startsWith("Loading model") || text.startsWith("Fetching param")) return "upload";
  return text.startsWith("Loading GPU shader") || text.startsWith("Finish") ? "compile" : "begin";
}

async function ask({ messages, prompt, settings }) {
  const options = { ...settings, stream: true, stream_options: { include_usage: true } };
  const { facts } = model;
  // WebLLM's text completion leaves out the tokens that stand before every prompt; a chat in a format
  // without any text around the messages is the same prompt with them.
  const chats = messages ?? (facts.prefix ? [{ role: "user", content: prompt }] : null);
  const stream = chats
    ? await engine.chat.completions.create({ ...options, messages: chats.map(literal) })
    : await engine.completions.create({ ...options, prompt });
  let usage;
  let finish;
  for await (const chunk of stream) {
    const [choice] = chunk.choices;
    const text = choice?.delta?.content ?? choice?.text;
    if (text) postMessage({ type: "text", text });
    finish = choice?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  if (finish === undefined) throw new Failure("no-end");
  postMessage({ type: "answered", usage, finish });
}

// WebLLM puts contents into a template by String.replace, for which $& and $1 are patterns.
function literal(message) {
  return { ...message, content: message.content.replaceAll("$", "$$$$") };
}
