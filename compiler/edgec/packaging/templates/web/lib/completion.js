// A text that the model continues where it ends.

import { figures } from "./format.js";

export class Completion {
  #text = document.getElementById("text");
  #go = document.getElementById("continue");
  #halt = document.getElementById("halt");
  #undo = document.getElementById("undo");
  #figures = document.getElementById("figures");
  #before = null;

  /** @param {(request: object, text: (piece: string) => void) => Promise<object|null>} ask */
  constructor(ask, stop) {
    this.#go.addEventListener("click", () => this.#continue(ask));
    this.#halt.addEventListener("click", stop);
    this.#undo.addEventListener("click", () => {
      this.#text.value = this.#before;
      this.#remember(null);
      this.focus();
    });
    this.#text.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      this.#continue(ask);
    });
  }

  /** Begin anew. */
  clear() {
    this.#text.value = "";
    this.#figures.value = "";
    this.#remember(null);
    this.focus();
  }

  focus() {
    this.#text.focus({ preventScroll: true });
  }

  async #continue(ask) {
    const prompt = this.#text.value;
    if (this.#text.readOnly) return;
    if (!prompt) {
      this.focus();
      return;
    }
    this.#switch(true);
    this.#figures.value = "";
    const result = await ask({ prompt }, (piece) => {
      this.#text.value += piece;
      this.#text.scrollTop = this.#text.scrollHeight;
    });
    this.#switch(false);
    if (this.#text.value !== prompt) this.#remember(prompt);
    if (result) this.#figures.value = figures(result.usage, result.finish);
    this.focus();
    this.#text.setSelectionRange(this.#text.value.length, this.#text.value.length);
  }

  #remember(text) {
    this.#before = text;
    this.#undo.disabled = text === null;
  }

  #switch(running) {
    this.#text.readOnly = running;
    this.#go.hidden = running;
    this.#halt.hidden = !running;
    if (running) this.#undo.disabled = true;
  }
}
