// The bar while a model loads: bytes of the download, then what WebLLM says of the rest.

import { duration, size } from "./format.js";

const PHASES = {
  download: "Downloading",
  begin: "Starting",
  upload: "Moving the weights to the graphics processor",
  compile: "Compiling for this graphics processor",
};

export class Progress {
  #phase = document.getElementById("phase");
  #bar = document.getElementById("bar");
  #amount = document.getElementById("amount");
  #begun = null;

  constructor() {
    this.show({ phase: "begin" });
  }

  show({ phase, done, total, file }) {
    this.#phase.textContent = PHASES[phase];
    if (phase === "begin") this.#bar.removeAttribute("value");
    else this.#bar.value = total ? done / total : 1;
    this.#amount.textContent = phase === "download" ? this.#bytes(done, total, file) : "";
  }

  #bytes(done, total, file) {
    const now = performance.now();
    this.#begun ??= { now, done };
    const rate = (1000 * (done - this.#begun.done)) / (now - this.#begun.now);
    // The first seconds say little of the rest.
    const left = now - this.#begun.now > 3000 ? duration((total - done) / rate) : "";
    return [`${size(done)} of ${size(total)}`, left && `${left} left`, file].filter(Boolean).join(" · ");
  }
}
