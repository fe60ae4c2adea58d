// A double of WebLLM 0.2.86: the part of it that the page uses, with the same caches, checks, texts and
// chunks, and words instead of a model. "double.json" beside the page says what is to happen.

const plan = fetch(new URL("../double.json", import.meta.url)).then(
  (response) => (response.ok ? response.json() : {}),
  () => ({}),
);
const pause = (ms) => new Promise((wake) => setTimeout(wake, ms));

function named(name, message, more = {}) {
  return Object.assign(new Error(message), { name, ...more });
}

async function digest(data) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return `sha256-${btoa(String.fromCharCode(...hash))}`;
}

async function cached(scope, url) {
  const cache = await caches.open(scope);
  if (!(await cache.match(url))) await cache.add(url);
  return (await cache.match(url)).arrayBuffer();
}

async function verify(data, expected, url) {
  const actual = await digest(data);
  if (actual !== expected) {
    throw named("IntegrityError", `Integrity verification failed for ${url}\n  Expected: ${expected}\n  Actual: ${actual}`);
  }
}

// An error that no scope captures, on a device of this worker; the answer never comes.
async function misuse() {
  const adapter = await navigator.gpu.requestAdapter();
  const device = await adapter.requestDevice();
  device.createBuffer({ size: 4, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.STORAGE });
  await device.queue.onSubmittedWorkDone();
  await new Promise(() => {});
}

export class MLCEngine {
  chat = { completions: { create: (request) => this.#stream(request, request.messages) } };
  completions = { create: (request) => this.#stream(request, null) };

  setAppConfig(appConfig) {
    this.appConfig = appConfig;
  }

  setInitProgressCallback(report) {
    this.report = (progress, text) => report({ progress, timeElapsed: 0, text });
  }

  async reload(id) {
    const { fail, slow = 0 } = await plan;
    const record = this.appConfig.model_list.find(({ model_id }) => model_id === id);
    if (!record) throw named("ModelNotFoundError", `Cannot find model record in appConfig for ${id}.`);
    const base = `${new URL(record.model).href}/resolve/main/`;
    const config = await cached("webllm/config", new URL("mlc-chat-config.json", base).href);
    await verify(config, record.integrity.config, base);
    const library = await cached("webllm/wasm", record.model_lib);
    await verify(library, record.integrity.model_lib, record.model_lib);
    if (fail) throw named(fail.name, fail.message);
    const tokenizer = await cached("webllm/model", new URL("tokenizer.json", base).href);
    await verify(tokenizer, record.integrity.tokenizer["tokenizer.json"], base);
    this.report(0, "Start to fetch params");
    const index = JSON.parse(new TextDecoder().decode(await cached("webllm/model", new URL("tensor-cache.json", base).href)));
    for (const [number, { dataPath, nbytes }] of index.records.entries()) {
      const shard = await cached("webllm/model", new URL(dataPath, base).href);
      if (shard.byteLength !== nbytes) throw named("RangeError", "Invalid typed array length");
      await pause(slow);
      const part = (number + 1) / index.records.length;
      this.report(part, `Loading model from cache[${number + 1}/${index.records.length}]: 1MB loaded.`);
    }
    for (let kernel = 1; kernel <= 4; kernel += 1) {
      await pause(slow);
      this.report(kernel / 4, `Loading GPU shader modules[${kernel}/4]: ${kernel * 25}% completed, 0 secs elapsed.`);
    }
    this.report(1, "Finish loading on WebGPU - double");
  }

  async interruptGenerate() {
    this.interrupted = true;
  }

  async #stream(request, messages) {
    if (!request.stream) throw new Error("the page streams");
    const { ask, words, leak, invalid } = await plan;
    if (ask) throw named(ask.name, ask.message);
    if (invalid) await misuse();
    const sent = leak && (await fetch(leak, { mode: "no-cors" }).then(() => "sent", () => "blocked"));
    return this.#generate(request, messages, sent ?? words);
  }

  async *#generate(request, messages, words) {
    this.interrupted = false;
    const said = JSON.stringify(messages ? messages.map(({ role, content }) => [role, content]) : request.prompt);
    const text = words ?? `You said ${said} with ${JSON.stringify(request.temperature)}.`;
    const pieces = text.match(/\s*\S+|\s+$/g) ?? [];
    const part = (content) => (messages ? { delta: { content, role: "assistant" } } : { text: content });
    let tokens = 0;
    let finish = "stop";
    const begun = performance.now();
    let first;
    for (const piece of pieces) {
      await pause(15);
      if (this.interrupted) {
        finish = "abort";
        break;
      }
      if (tokens >= (request.max_tokens ?? Infinity)) {
        finish = "length";
        break;
      }
      tokens += 1;
      first ??= (performance.now() - begun) / 1000;
      yield { choices: [{ ...part(piece), finish_reason: null, index: 0 }] };
    }
    yield { choices: [{ ...(messages ? { delta: {} } : { text: "" }), finish_reason: finish, index: 0 }] };
    const extra = { decode_tokens_per_s: 61.7, prefill_tokens_per_s: 300, time_to_first_token_s: first ?? 0 };
    yield { choices: [], usage: { completion_tokens: tokens, prompt_tokens: 3, total_tokens: tokens + 3, extra } };
  }
}
