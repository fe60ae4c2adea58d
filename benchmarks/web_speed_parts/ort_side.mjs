// The same weights in ONNX Runtime Web on WebGPU, called as Transformers.js calls it: the KV cache
// stays in GPU buffers, the logits are read. Started as
//   node ort_side.mjs NODE_MODULES
// Under Node.js, Transformers.js itself takes the native ONNX Runtime; in a browser it takes this one.

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { serve } from "./side.mjs";

const [modules] = process.argv.slice(2);
const BUILD = path.join(modules, "onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify");

const { create, globals } = await import(pathToFileURL(path.join(modules, "webgpu/index.js")));
Object.assign(globalThis, globals);
Object.defineProperty(globalThis, "navigator", { value: { gpu: create([]) } });

// The runtime's memory is shared between threads. Browsers write from such memory; Dawn under
// Node.js takes plain memory alone.
const { writeBuffer } = GPUQueue.prototype;
GPUQueue.prototype.writeBuffer = function (buffer, offset, data, ...range) {
  return writeBuffer.call(this, buffer, offset, plain(data), ...range);
};

function plain(data) {
  if (!(data.buffer instanceof SharedArrayBuffer)) return data;
  const copy = new Uint8Array(data.byteLength);
  copy.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return copy;
}

class Engine {
  async open({ model, layers, heads, width, dtype, shared }) {
    const began = performance.now();
    const address = path.join(modules, "onnxruntime-web/dist/ort.webgpu.min.mjs");
    this.ort = await import(pathToFileURL(address));
    const { wasm } = this.ort.env;
    wasm.numThreads = 1;
    wasm.wasmPaths = { mjs: pathToFileURL(`${BUILD}.mjs`).href };
    wasm.wasmBinary = fs.readFileSync(`${BUILD}.wasm`);
    this.ort.env.logLevel = "error";
    const preferredOutputLocation = { logits: "cpu" };
    this.names = [];
    for (let layer = 0; layer < layers; layer++)
      for (const part of ["key", "value"]) {
        preferredOutputLocation[`present.${layer}.${part}`] = "gpu-buffer";
        this.names.push(`${layer}.${part}`);
      }
    this.session = await this.ort.InferenceSession.create(new Uint8Array(fs.readFileSync(model)), {
      executionProviders: ["webgpu"],
      graphOptimizationLevel: "all",
      preferredOutputLocation,
    });
    const device = await this.ort.env.webgpu.device;
    Object.assign(this, { device, heads, width, dtype, shared });
    const seconds = (performance.now() - began) / 1000;
    const { description, device: name, vendor } = device.adapterInfo;
    return { adapter: description || name || vendor, seconds };
  }

  begin() {
    this.length = 0;
    this.past = {};
    for (const name of this.names) this.past[name] = this.#cache();
  }

  async forward(tokens) {
    this.length += tokens.length;
    const feeds = {
      input_ids: this.#integers(tokens),
      attention_mask: this.#integers(Array(this.length).fill(1)),
    };
    const fetches = { logits: null };
    for (const name of this.names) {
      feeds[`past_key_values.${name}`] = this.past[name];
      fetches[`present.${name}`] = this.shared ? this.past[name] : null;
    }
    const results = await this.session.run(feeds, fetches);
    for (const name of this.shared ? [] : this.names) {
      this.past[name].dispose();
      this.past[name] = results[`present.${name}`];
    }
    return results.logits.data;
  }

  end() {
    for (const name of this.names) this.past[name].dispose();
  }

  // Empty, or as long as the longest text where one buffer is both input and output.
  #cache() {
    const dims = [1, this.heads, this.shared, this.width];
    const dataType = this.dtype;
    if (!this.shared) {
      const empty = dataType === "float16" ? new Uint16Array(0) : new Float32Array(0);
      return new this.ort.Tensor(dataType, empty, dims);
    }
    const size = this.heads * this.shared * this.width * (dataType === "float16" ? 2 : 4);
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    const buffer = this.device.createBuffer({ size, usage });
    const dispose = () => buffer.destroy();
    return this.ort.Tensor.fromGpuBuffer(buffer, { dataType, dims, dispose });
  }

  #integers(values) {
    return new this.ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
  }
}

await serve(new Engine());
