// What the driver calls in the page: load one model, ask it, forget what was said.

import { MLCEngine } from "/npm/@mlc-ai/web-llm/lib/index.js";

// WebLLM logs the errors of a device as objects that a console can't show.
const problems = [];
const requestDevice = GPUAdapter.prototype.requestDevice;
GPUAdapter.prototype.requestDevice = async function (...asked) {
  const device = await requestDevice.apply(this, asked);
  device.addEventListener("uncapturederror", ({ error }) => problems.push(error.message));
  device.lost.then(({ reason, message }) => {
    if (reason !== "destroyed") problems.push(`the device was lost: ${message}`);
  });
  return device;
};

let engine;
let modelId;

async function describeAdapter() {
  const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) return null;
  const { vendor, architecture, description } = adapter.info;
  return {
    name: [vendor, architecture, description].filter(Boolean).join(" "),
    features: [...adapter.features].sort(),
  };
}

async function load(record, overrides) {
  const began = performance.now();
  const progress = [];
  engine = new MLCEngine({
    appConfig: { model_list: [record] },
    initProgressCallback: ({ text }) => progress.push(text),
  });
  modelId = record.model_id;
  await engine.reload(modelId, overrides);
  return { seconds: (performance.now() - began) / 1000, progress };
}

async function ask(kind, request) {
  const create = (body) =>
    kind === "chat" ? engine.chat.completions.create(body) : engine.completions.create(body);
  const textOf = (choice) =>
    (kind === "chat" ? (choice.delta ?? choice.message).content : choice.text) ?? "";
  const began = performance.now();
  const answer = { pieces: [], logprobs: [], usage: null, finish_reason: null };
  const take = ({ choices, usage }) => {
    for (const choice of choices) {
      if (textOf(choice)) {
        answer.first_piece_seconds ??= (performance.now() - began) / 1000;
        answer.pieces.push(textOf(choice));
      }
      answer.logprobs.push(...(choice.logprobs?.content ?? []));
      answer.finish_reason = choice.finish_reason ?? answer.finish_reason;
    }
    answer.usage = usage ?? answer.usage;
  };
  if (request.stream) {
    const options = { include_usage: true, ...request.stream_options };
    for await (const chunk of await create({ ...request, stream_options: options })) take(chunk);
  } else {
    take(await create(request));
  }
  answer.seconds = (performance.now() - began) / 1000;
  // WebLLM has no public way to the ids.
  const pipeline = engine.loadedModelIdToPipeline.get(modelId);
  answer.token_ids = [...pipeline.outputIds];
  answer.prompt_ids = kind === "chat" ? [] : [...pipeline.tokenizer.encode(request.prompt)];
  return answer;
}

const operations = {
  adapter: describeAdapter,
  load: ({ record, overrides }) => load(record, overrides),
  ask: ({ kind, request }) => ask(kind, request),
  reset: () => engine.resetChat(),
  stats: () => engine.runtimeStatsText(),
};

// Errors cross to the driver as plain data.
window.run = async (operation, argument) => {
  try {
    const value = await operations[operation](argument);
    // A device tells of its errors in a task of their own.
    await new Promise((resolve) => setTimeout(resolve));
    return { ok: true, value, problems: problems.splice(0) };
  } catch (error) {
    return {
      ok: false,
      name: error?.name ?? "Error",
      message: String(error?.message ?? error),
      problems: problems.splice(0),
    };
  }
};
window.ready = true;
