// A conversation: questions, answers as they come, and what each took.

import { figures } from "./format.js";
import { render } from "./render.js";

const NEAR = 48; // pixels from the end at which the view follows the answer

export class Chat {
  #log = document.getElementById("log");
  #empty = document.getElementById("empty");
  #question = document.getElementById("question");
  #send = document.getElementById("send");
  #stop = document.getElementById("stop");
  #messages = [];
  #answering = false;

  /** @param {(request: object, text: (piece: string) => void) => Promise<object|null>} ask */
  constructor(ask, stop) {
    document.getElementById("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit(ask);
    });
    this.#stop.addEventListener("click", stop);
    this.#question.addEventListener("input", () => this.#fit());
    this.#question.addEventListener("keydown", (event) => {
      // On a phone, the key makes a new line as in other apps; the button sends.
      const touch = matchMedia("(pointer: coarse)").matches;
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || touch) return;
      event.preventDefault();
      this.#submit(ask);
    });
  }

  /** Begin anew. */
  clear() {
    this.#messages = [];
    this.#log.replaceChildren();
    this.#empty.hidden = false;
    this.focus();
  }

  focus() {
    this.#question.focus({ preventScroll: true });
  }

  async #submit(ask) {
    const content = this.#question.value.trim();
    if (!content || this.#answering) return;
    const asked = { role: "user", content };
    this.#empty.hidden = true;
    const entry = this.#add("user");
    entry.append(content);
    const answer = this.#add("assistant");
    const body = document.createElement("div");
    body.className = "body writing";
    answer.append(body);
    answer.setAttribute("aria-busy", "true");
    this.#question.value = "";
    this.#fit();
    this.#log.scrollTop = this.#log.scrollHeight;
    this.#switch(true);
    let text = "";
    let drawn = false;
    const draw = () => {
      drawn = false;
      this.#following(() => render(body, text));
    };
    const result = await ask({ messages: [...this.#messages, asked] }, (piece) => {
      text += piece;
      if (!drawn) requestAnimationFrame(draw);
      drawn = true;
    });
    this.#switch(false);
    draw();
    body.classList.remove("writing");
    answer.removeAttribute("aria-busy");
    if (result === null) {
      // The question goes back to where it can be sent again.
      entry.remove();
      answer.remove();
      this.#question.value = content;
      this.#fit();
    } else {
      this.#messages.push(asked, { role: "assistant", content: text });
      const note = document.createElement("p");
      note.className = "figures";
      note.textContent = figures(result.usage, result.finish);
      this.#following(() => answer.append(note));
    }
    this.focus();
  }

  #add(role) {
    const entry = document.createElement("div");
    entry.className = `message ${role}`;
    const who = document.createElement("span");
    who.className = "sr-only";
    who.textContent = role === "user" ? "You: " : "Model: ";
    entry.append(who);
    this.#log.append(entry);
    return entry;
  }

  /** Change the log; who reads its end stays at its end. */
  #following(change) {
    const log = this.#log;
    const near = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;
    change();
    if (near) log.scrollTop = log.scrollHeight;
  }

  #fit() {
    this.#question.style.height = "auto";
    this.#question.style.height = `${this.#question.scrollHeight}px`;
  }

  #switch(answering) {
    this.#answering = answering;
    this.#send.hidden = answering;
    this.#stop.hidden = !answering;
  }
}
