// One model library with its weights and KV cache, in the JavaScript runtime of WebLLM and on Dawn.
// It calls the same functions with the same arguments as edgec.runtime.engine.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

export class NoAdapter extends Error {}

// A shader that begins so can't be compiled without the feature of that name.
const FLOAT16 = "shader-f16";

export class Library {
  // Instantiates the module, loads its weights, and makes the pipelines of all its kernels.
  static async open(modules, wasm, weights) {
    const { create, globals } = await import(pathToFileURL(path.join(modules, "webgpu/index.js")));
    Object.assign(globalThis, globals);
    // Where a browser has it, and so where the runtime looks for it.
    Object.defineProperty(globalThis, "navigator", { value: { gpu: create([]) } });
    const require = createRequire(path.join(modules, "x.js"));
    const tvmjs = require("@mlc-ai/web-runtime");
    if ((await navigator.gpu.requestAdapter()) === null)
      throw new NoAdapter("Dawn finds no adapter");
    const instance = await tvmjs.instantiate(fs.readFileSync(wasm), tvmjs.createPolyfillWASI());
    let gpu;
    try {
      gpu = await tvmjs.detectGPUDevice();
    } catch (error) {
      throw new NoAdapter(error.message);
    }
    instance.initWebGPU(gpu.device);
    const library = new Library(tvmjs, instance, gpu);
    await library.#prepare();
    library.#load(weights);
    await library.settle();
    return library;
  }

  constructor(tvmjs, instance, { adapterInfo, device }) {
    this.tvmjs = tvmjs;
    this.instance = instance;
    this.functions = new Map();
    this.problems = [];
    device.addEventListener("uncapturederror", ({ error }) => this.problems.push(error.message));
    device.lost.then(({ message }) => this.problems.push(`the device was lost: ${message}`));
    this.gpu = instance.webgpu();
    this.facts = {
      adapter: adapterInfo.description || adapterInfo.device || adapterInfo.vendor,
      features: [...device.features].sort(),
    };
    this.features = device.features;
  }

  async #prepare() {
    const { instance } = this;
    instance.beginScope();
    this.machine = instance.detachFromCurrentScope(instance.createVirtualMachine(this.gpu));
    const module = this.machine.getInternalModule();
    this.metadata = JSON.parse(this.machine.getFunction("_metadata")().toString());
    const kernels = JSON.parse(module.getFunction("webgpu.get_fmap", true)());
    const shader = module.getFunction("webgpu.get_shader");
    const wanting = Object.keys(kernels).filter((name) => /^\s*enable f16/m.test(shader(name)));
    instance.endScope();
    if (wanting.length && !this.features.has(FLOAT16))
      throw new NoAdapter(
        `${this.facts.adapter} has no ${FLOAT16}, which ${wanting.length} kernels need`,
      );
    const began = performance.now();
    await instance.asyncLoadWebGPUPipelines(module);
    this.facts.kernels = Object.keys(kernels).length;
    this.facts.pipeline_seconds = (performance.now() - began) / 1000;
  }

  #load(folder) {
    const { instance } = this;
    const index = JSON.parse(fs.readFileSync(path.join(folder, "tensor-cache.json")));
    const places = new Map();
    for (const shard of index.records)
      for (const record of shard.records) places.set(record.name, { shard, record });
    instance.beginScope();
    const opened = new Map();
    const tensors = this.metadata.params.map(({ name }) => {
      const { shard, record } = places.get(name);
      if (!opened.has(shard.dataPath))
        opened.set(shard.dataPath, fs.openSync(path.join(folder, shard.dataPath)));
      const bytes = Buffer.alloc(record.nbytes);
      fs.readSync(opened.get(shard.dataPath), bytes, 0, record.nbytes, record.byteOffset);
      return this.#upload({ dtype: record.dtype, shape: record.shape, bytes });
    });
    for (const file of opened.values()) fs.closeSync(file);
    this.parameters = instance.detachFromCurrentScope(instance.makeTVMArray(tensors));
    instance.endScope();
  }

  // The sizes, as create_tir_paged_kv_cache takes them: five numbers.
  createCache(sizes) {
    this.#within(() => {
      this.cache?.dispose();
      const shapes = sizes.map((size) => this.instance.makeShapeTuple([size]));
      const made = this.#function("create_tir_paged_kv_cache")(...shapes);
      this.cache = this.instance.detachFromCurrentScope(made);
    });
    return this.settle();
  }

  // Calls vm.builtin.kv_state_<name>(cache, numbers...).
  async state(name, numbers) {
    this.#within(() => {
      const scalars = numbers.map((number) => new this.tvmjs.Scalar(number, "int64"));
      this.#global(`vm.builtin.${name}`)(this.cache, ...scalars);
    });
  }

  // Appends tokens, int32, of some sequences; logits, float32.
  forward(name, sequences, lengths, tokens) {
    return this.#read(() => {
      const { instance, tvmjs } = this;
      const embedded = this.#function("embed")(this.#upload(tokens), this.parameters);
      const [count, width] = embedded.shape;
      const outer = name === "batch_decode" ? [count, 1] : [1, count];
      const inputs = [embedded.view([...outer, width])];
      if (name === "batch_prefill") {
        let end = -1;
        const ends = Int32Array.from(lengths, (length) => (end += length));
        const bytes = new Uint8Array(ends.buffer);
        inputs.push(this.#upload({ dtype: "int32", shape: [ends.length], bytes }));
      }
      this.#global("vm.builtin.kv_state_begin_forward")(
        this.cache,
        instance.makeShapeTuple(sequences),
        instance.makeShapeTuple(lengths),
      );
      const result = this.#function(name)(...inputs, this.cache, this.parameters);
      this.#global("vm.builtin.kv_state_end_forward")(this.cache);
      const logits = result.get(0);
      if (logits.dtype !== "float32")
        throw new Error(`${name} gives logits in ${logits.dtype}, not in float32`);
      return [logits];
    }).then(([logits]) => logits);
  }

  // Calls a function on tensors; all that it returns, one or several.
  call(name, tensors) {
    return this.#read(() => {
      const result = this.#function(name)(...tensors.map((tensor) => this.#upload(tensor)));
      if (result instanceof this.tvmjs.Tensor) return [result];
      return Array.from({ length: result.size() }, (_, index) => result.get(index));
    });
  }

  // Calls a function that changes its first tensor; that tensor.
  inPlace(name, tensors) {
    return this.#read(() => {
      const uploaded = tensors.map((tensor) => this.#upload(tensor));
      this.#function(name)(...uploaded);
      return [uploaded[0]];
    }).then(([changed]) => changed);
  }

  has(name) {
    try {
      this.#within(() => this.#function(name));
    } catch {
      return false;
    }
    return true;
  }

  // Waits for the device, and throws what it complained of.
  async settle() {
    await this.gpu.sync();
    // Dawn tells of errors in tasks of their own.
    await new Promise((resolve) => setImmediate(resolve));
    if (this.problems.length) throw new Error(this.problems.splice(0).join("; "));
  }

  #within(action) {
    this.instance.beginScope();
    try {
      return action();
    } finally {
      this.instance.endScope();
    }
  }

  // Runs an action and reads the tensors that it returns.
  async #read(action) {
    const copies = this.#within(() =>
      action().map((tensor) => {
        const copy = this.instance.empty(tensor.shape, tensor.dtype, this.instance.cpu());
        return this.instance.detachFromCurrentScope(copy.copyFrom(tensor));
      }),
    );
    await this.settle();
    return copies.map((copy) => {
      const read = { dtype: copy.dtype, shape: copy.shape, bytes: copy.toRawBytes() };
      copy.dispose();
      return read;
    });
  }

  #upload({ dtype, shape, bytes }) {
    const { instance } = this;
    const tensor = instance.empty(shape, dtype, this.gpu);
    if (bytes.length % 4 === 0) return tensor.copyFromRawBytes(bytes);
    // A device copies whole words; the runtime pads when it copies from a tensor of its own.
    const host = instance.empty(shape, dtype, instance.cpu()).copyFromRawBytes(bytes);
    return tensor.copyFrom(host);
  }

  #function(name) {
    return this.#kept(name, () => this.machine.getFunction(name));
  }

  #global(name) {
    return this.#kept(name, () => this.instance.getGlobalFunc(name));
  }

  #kept(name, find) {
    if (!this.functions.has(name)) {
      const found = find();
      if (typeof found !== "function") throw new Error(`the library has no function ${name}`);
      this.functions.set(name, this.instance.detachFromCurrentScope(found));
    }
    return this.functions.get(name);
  }
}
