// The page's side of the worker.

import { Failure } from "./failure.js";

export class Client {
  #worker;
  #waiting = null;
  #listener = {};
  #broken;

  /**
   * Start a worker. It is a blob that imports the file, so that the page's rules hold for it.
   * @param {(error: object) => void} broken is told when the GPU fails while nothing is asked
   */
  constructor(broken) {
    this.#broken = broken;
    const file = new URL("worker.js", import.meta.url).href;
    const source = new Blob([`import ${JSON.stringify(file)};`], { type: "text/javascript" });
    const url = URL.createObjectURL(source);
    this.#worker = new Worker(url, { type: "module" });
    this.#worker.addEventListener("message", ({ data }) => this.#receive(data));
    this.#worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.#fail(new Failure("worker", { message: event.message ?? "" }));
    });
  }

  /** Load a model; `progress` is called with what the worker says. */
  load(model, appConfig, progress) {
    return this.#call({ type: "load", model, appConfig }, { progress });
  }

  /**
   * Ask; `text` is called with every piece.
   * @returns {Promise<{usage: object, finish: string}>}
   */
  ask(request, text) {
    return this.#call({ type: "ask", request }, { text });
  }

  /** Stop an answer; `ask` then ends with the finish "abort". */
  stop() {
    this.#worker.postMessage({ type: "stop" });
  }

  /** End the worker and free everything; what waits fails with the code "ended". */
  end() {
    this.#worker.terminate();
    this.#broken = () => {};
    this.#fail(new Failure("ended"));
  }

  #call(message, listener) {
    this.#listener = listener;
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#worker.postMessage(message);
    });
  }

  #receive(data) {
    if (data.type === "progress") this.#listener.progress?.(data);
    else if (data.type === "text") this.#listener.text?.(data.text);
    else if (data.type === "loaded" || data.type === "answered") this.#settle("resolve", data);
    else if (data.type === "failed") this.#fail(data.error);
    else if (data.type === "device") this.#fail(new Failure("device", data.problem));
  }

  #fail(error) {
    if (this.#waiting) this.#settle("reject", error);
    else this.#broken(error);
  }

  #settle(how, value) {
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.[how](value);
  }
}
