// What JavaScript does with a library for browsers until a model is loaded, with the same views of the
// memory: they are made anew only when the library says that its memory grew.
//
//     node web_page.mjs LIBRARY NAME...
//
// Prints one line of JSON: what the library printed, which of the global functions NAME are there,
// the pages of memory, and how it ended.
import fs from "node:fs";

const [library, ...names] = process.argv.slice(2);
const said = { printed: "", found: {}, pages: [], grown: 0, ended: "" };
let exported, bytes, words;

function makeViews() {
  bytes = new Uint8Array(exported.memory.buffer);
  words = new Uint32Array(exported.memory.buffer);
}

const wasi = {
  clock_time_get: () => 0,
  environ_get: () => 0,
  environ_sizes_get(count, size) {
    words[count >> 2] = words[size >> 2] = 0;
    return 0;
  },
  fd_close: () => 0,
  fd_read: () => 8,
  fd_seek: () => 70,
  fd_write(file, pieces, count, written) {
    let total = 0;
    for (let i = 0; i < count; ++i) {
      const [start, size] = words.subarray((pieces >> 2) + 2 * i, (pieces >> 2) + 2 * i + 2);
      said.printed += Buffer.from(bytes.subarray(start, start + size)).toString();
      total += size;
    }
    words[written >> 2] = total;
    // Views of memory that grew are empty: C's library would try to write for ever.
    if (!bytes.length) throw new Error("nobody said that the memory grew");
    return 0;
  },
  proc_exit(status) {
    throw new Error(`exit ${status}`);
  },
};
const env = {
  TVMFFIWasmSafeCall: () => -1,
  TVMFFIWasmFunctionDeleter() {},
  emscripten_notify_memory_growth() {
    said.grown += 1;
    makeViews();
  },
};

function place(text) {
  const address = exported.TVMWasmAllocSpace(text.length + 1);
  new Uint8Array(exported.memory.buffer).set(Buffer.from(text + "\0"), address);
  return address;
}

function word(address) {
  return new DataView(exported.memory.buffer).getUint32(address, true);
}

// A text as TVM's C functions take it: where it is, and how long.
function byteArray(text) {
  const pair = exported.TVMWasmAllocSpace(8);
  const address = place(text);
  new Uint32Array(exported.memory.buffer).set([address, text.length], pair >> 2);
  return pair;
}

function globalFunction(name) {
  const out = exported.TVMWasmAllocSpace(8);
  const failed = exported.TVMFFIFunctionGetGlobal(byteArray(name), out);
  return failed ? 0 : word(out);
}

function call(handle) {
  const result = exported.TVMWasmAllocSpace(16);
  new Uint8Array(exported.memory.buffer).fill(0, result, result + 16);
  const failed = exported.TVMFFIFunctionCall(handle, 0, 0, result);
  if (!failed) return;
  throw new Error(`failed: ${Buffer.from(bytes.subarray(exported.TVMFFIWasmGetLastError()))}`);
}

try {
  const module = new WebAssembly.Module(fs.readFileSync(library));
  exported = new WebAssembly.Instance(module, { env, wasi_snapshot_preview1: wasi }).exports;
  makeViews();
  exported._initialize();
  for (const name of names) said.found[name] = globalFunction(name) !== 0;
  // Weights pass through memory: more than there was at the beginning.
  const before = exported.memory.buffer.byteLength;
  exported.TVMWasmFreeSpace(exported.TVMWasmAllocSpace(before));
  said.pages = [before, exported.memory.buffer.byteLength].map((size) => size >> 16);
  // It wants arguments, and here it gets none.
  call(globalFunction("ffi.ArrayGetItem"));
  said.ended = "well";
} catch (error) {
  said.ended = `${error.constructor.name}: ${error.message}`;
}
console.log(JSON.stringify(said));
