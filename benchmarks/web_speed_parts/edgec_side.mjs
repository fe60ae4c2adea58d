// edgec's library in the JavaScript runtime of WebLLM. Started as
//   node edgec_side.mjs LIBRARY.MJS NODE_MODULES

import { pathToFileURL } from "node:url";
import { serve } from "./side.mjs";

const [program, modules] = process.argv.slice(2);
const PAGE_SIZE = 16;

class Engine {
  async open({ library, weights, context, prompt }) {
    const { Library } = await import(pathToFileURL(program));
    const began = performance.now();
    this.library = await Library.open(modules, library, weights);
    await this.library.createCache([1, context, prompt, PAGE_SIZE, 0]);
    const seconds = (performance.now() - began) / 1000;
    const { adapter, pipeline_seconds } = this.library.facts;
    return { adapter, seconds, pipeline_seconds };
  }

  async begin() {
    this.length = 0;
    await this.library.state("kv_state_add_sequence", [0]);
  }

  async forward(tokens) {
    const bytes = new Uint8Array(Int32Array.from(tokens).buffer);
    const name = tokens.length > 1 ? "prefill" : "decode";
    const described = { dtype: "int32", shape: [tokens.length], bytes };
    const { bytes: read } = await this.library.forward(name, [0], [tokens.length], described);
    return new Float32Array(read.buffer, read.byteOffset, read.byteLength / 4);
  }

  end() {
    return this.library.state("kv_state_remove_sequence", [0]);
  }
}

await serve(new Engine());
