// The list of models, with what this device can't run, and why.

import { size } from "./format.js";
import { explain } from "./messages.js";
import { obstacle } from "./models.js";

/**
 * Show the models; the first that can run is chosen, or `wanted`.
 * @returns {boolean} whether there is one
 */
export function showModels(models, device, wanted, changed) {
  const field = document.getElementById("models");
  field.querySelectorAll("label").forEach((label) => label.remove());
  const found = models.map((model) => (device ? obstacle(model, device) : null));
  const able = models.filter((_, index) => !found[index]);
  const chosen = able.find((model) => model.record.model_id === wanted) ?? able[0];
  models.forEach((model, index) => {
    const entry = row(model, found[index], model === chosen);
    entry.querySelector("input").addEventListener("change", changed);
    field.append(entry);
  });
  return chosen !== undefined;
}

/** The model that is chosen. */
export function chosenModel(models) {
  const id = document.querySelector("#models input:checked")?.value;
  return models.find((model) => model.record.model_id === id);
}

function row({ record, facts }, problem, chosen) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  Object.assign(input, { type: "radio", name: "model", value: record.model_id, checked: chosen, disabled: Boolean(problem) });
  const about = document.createElement("span");
  about.className = "about";
  const title = part("strong", facts.title);
  title.append(part("code", facts.quantization));
  about.append(title);
  if (facts.description) about.append(part("span", facts.description, "small"));
  const needs = `${size(facts.download_bytes)} to download · ${size(facts.estimated_vram_bytes)} of memory`;
  about.append(part("span", facts.precision, "small"), part("span", needs, "small"));
  if (problem) about.append(part("span", explain(problem).text, "small reason"));
  label.append(input, about);
  return label;
}

function part(tag, text, name = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = name;
  return element;
}
