// Answers requests of another process about one model library. Started as
//   node worker.mjs DESCRIPTOR NODE_MODULES
// Messages go both ways over the socket DESCRIPTOR: two little-endian uint32, the sizes of what
// follows, then a JSON object, then the bytes of the tensors that its "tensors" describe
// ([{dtype, shape}, ...]), one after the other. One request is answered before the next is read.

import net from "node:net";
import util from "node:util";
import { Library, NoAdapter } from "./library.mjs";

const [descriptor, modules] = process.argv.slice(2);
const socket = new net.Socket({ fd: Number(descriptor), readable: true, writable: true });

// What the runtime says belongs to the next error; the socket alone carries answers.
const said = [];
for (const level of ["log", "info", "warn", "error", "debug"]) {
  console[level] = (...words) => {
    said.push(util.format(...words).trim());
    if (said.length > 20) said.shift();
  };
}

let library;

const operations = {
  open: async ({ wasm, weights }) => {
    library = await Library.open(modules, wasm, weights);
    return { facts: library.facts, metadata: library.metadata };
  },
  cache: ({ sizes }) => library.createCache(sizes),
  state: ({ name, numbers }) => library.state(name, numbers),
  forward: async ({ name, sequences, lengths }, [tokens]) => ({
    tensors: [await library.forward(name, sequences, lengths, tokens)],
  }),
  call: async ({ name, tensors: _ }, tensors) => ({ tensors: await library.call(name, tensors) }),
  in_place: async ({ name }, tensors) => ({ tensors: [await library.inPlace(name, tensors)] }),
  has: ({ name }) => ({ found: library.has(name) }),
  sync: () => library.settle(),
};

async function answer(header, payload) {
  const tensors = [];
  let start = 0;
  for (const { dtype, shape, nbytes } of header.tensors ?? []) {
    tensors.push({ dtype, shape, bytes: payload.subarray(start, start + nbytes) });
    start += nbytes;
  }
  said.length = 0;
  try {
    const began = performance.now();
    const result = (await operations[header.operation](header, tensors)) ?? {};
    send({ ok: true, seconds: (performance.now() - began) / 1000, ...result });
  } catch (error) {
    send({
      ok: false,
      kind: error instanceof NoAdapter ? "adapter" : "library",
      message: String(error?.message ?? error),
      said,
    });
  }
}

function send({ tensors = [], ...header }) {
  const described = tensors.map(({ dtype, shape, bytes }) => ({
    dtype,
    shape,
    nbytes: bytes.length,
  }));
  const text = Buffer.from(JSON.stringify({ ...header, tensors: described }));
  const sizes = Buffer.alloc(8);
  sizes.writeUInt32LE(text.length, 0);
  sizes.writeUInt32LE(
    tensors.reduce((sum, { bytes }) => sum + bytes.length, 0),
    4,
  );
  socket.write(Buffer.concat([sizes, text, ...tensors.map(({ bytes }) => bytes)]));
}

async function* messages() {
  let pieces = [];
  let have = 0;
  const take = (count) => {
    const all = Buffer.concat(pieces);
    pieces = [all.subarray(count)];
    have -= count;
    return all.subarray(0, count);
  };
  let sizes = null;
  for await (const piece of socket) {
    pieces.push(piece);
    have += piece.length;
    for (;;) {
      if (sizes === null) {
        if (have < 8) break;
        const head = take(8);
        sizes = [head.readUInt32LE(0), head.readUInt32LE(4)];
      }
      if (have < sizes[0] + sizes[1]) break;
      const header = JSON.parse(take(sizes[0]).toString());
      yield [header, take(sizes[1])];
      sizes = null;
    }
  }
}

for await (const [header, payload] of messages()) await answer(header, payload);
// The other side is gone. Dawn keeps threads that Node.js would wait for.
process.exit(0);
