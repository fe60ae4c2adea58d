// The box that says what went wrong and what to do.

import { explain } from "./messages.js";

const at = (id) => document.getElementById(id);

/**
 * Show a failure.
 * @param {object} error an Error or its plain data
 * @param {{retry: (() => void) | null, back: (() => void) | null, onlyKept?: boolean}} actions
 *   `onlyKept`: show it only if the model can go on after it
 * @returns {boolean} whether it is shown
 */
export function showProblem(error, { retry, back, onlyKept = false }) {
  const said = explain(error);
  if (onlyKept && !said.keep) return false;
  at("problem-title").textContent = said.title;
  at("problem-text").textContent = said.text;
  at("problem-remedy").textContent = said.remedy;
  at("problem-detail").textContent = said.detail;
  at("problem-files").replaceChildren(...(said.files ?? []).map(fileEntry));
  at("problem-files").hidden = !said.files;
  wire(at("retry"), said.retry === false ? null : retry);
  wire(at("back"), back);
  at("back").textContent = onlyKept ? "Close" : "Models";
  at("problem").hidden = false;
  at("problem").focus();
  return true;
}

export function hideProblem() {
  at("problem").hidden = true;
}

function fileEntry({ name, problem }) {
  const entry = document.createElement("li");
  const code = document.createElement("code");
  code.textContent = name;
  entry.append(code, ` ${problem}`);
  return entry;
}

function wire(button, action) {
  button.hidden = !action;
  button.onclick = action ? () => action() : null;
}
