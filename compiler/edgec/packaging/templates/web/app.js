// The page: choose a model, load it, talk to it.

import { Chat } from "./lib/chat.js";
import { chosenModel, showModels } from "./lib/chooser.js";
import { Client } from "./lib/client.js";
import { Completion } from "./lib/completion.js";
import { forget, isDownloaded } from "./lib/files.js";
import { showProblem, hideProblem } from "./lib/problem.js";
import { Progress } from "./lib/progress.js";
import { size } from "./lib/format.js";
import { findDevice, readModels } from "./lib/models.js";
import { readSettings, showSettings } from "./lib/settings.js";

const SITE = new URL("./", import.meta.url);
const VIEWS = ["start", "loading", "chat", "completion"];
const TITLE = document.title;
const at = (id) => document.getElementById(id);

let site;
let device;
let client;
let model;
let answering = false;
const chat = new Chat(ask, stop);
const completion = new Completion(ask, stop);
const view = () => (model.facts.completion ? completion : chat);

function show(name) {
  for (const id of VIEWS) at(id).hidden = id !== name;
  const working = name === "chat" || name === "completion";
  at("settings").hidden = !working;
  at("running").hidden = !working;
  at("title").textContent = working ? model.facts.title : TITLE;
  at("running-name").textContent = working ? model.facts.precision : "";
  document.body.dataset.view = name;
  if (name) hideProblem();
}

function fail(error, retry) {
  if (error.code === "ended") return;
  console.error(error);
  show("");
  showProblem(error, { retry, back: device ? start : null });
}

async function open() {
  try {
    site ??= await readModels(SITE);
    device = await findDevice();
    await start();
  } catch (error) {
    fail(error, open);
  }
}

async function start() {
  client?.end();
  client = undefined;
  const wanted = model?.record.model_id ?? new URL(location.href).searchParams.get("model");
  const able = showModels(site.models, device, wanted, describe);
  at("device").textContent = device.name ? `Graphics processor: ${device.name}` : "";
  at("load").disabled = !able;
  show("start");
  await describe();
}

/** Say what the button does with the chosen model. */
async function describe() {
  const chosen = chosenModel(site.models);
  at("load").textContent = chosen ? "Start" : "No model runs on this device";
  at("forget").hidden = true;
  if (!chosen) return;
  const here = await isDownloaded(chosen).catch(() => false);
  if (chosen !== chosenModel(site.models)) return;
  at("load").textContent = here ? "Start" : `Download ${size(chosen.facts.download_bytes)} and start`;
  at("forget").hidden = !here;
}

async function load() {
  model = chosenModel(site.models);
  client = new Client((error) => fail(error, load));
  const mine = client;
  const progress = new Progress();
  at("loading-title").textContent = `Loading ${model.facts.title}`;
  show("loading");
  try {
    await client.load(model, site.appConfig, (data) => progress.show(data));
  } catch (error) {
    if (mine === client) release();
    fail(error, load);
    return;
  }
  at("status").textContent = "The model is loaded.";
  showSettings(model);
  show(model.facts.completion ? "completion" : "chat");
  view().clear();
}

function release() {
  client?.end();
  client = undefined;
}

/** Ask the model; null if there is no answer, which the page then says. */
async function ask(request, text) {
  const settings = readSettings();
  if (!settings) return null;
  answering = true;
  try {
    const result = await client.ask({ ...request, settings }, text);
    at("status").textContent = "The answer is complete.";
    return result;
  } catch (error) {
    const kept = showKept(error);
    if (!kept) {
      release();
      fail(error, load);
    }
    return null;
  } finally {
    answering = false;
  }
}

/** Show an error after which the model can go on, above the text; false if it isn't one. */
function showKept(error) {
  const back = () => hideProblem();
  return showProblem(error, { retry: null, back, onlyKept: true });
}

function stop() {
  client?.stop();
  at("status").textContent = "Stopping.";
}

at("load").addEventListener("click", load);
at("cancel").addEventListener("click", start);
at("change").addEventListener("click", start);
at("clear").addEventListener("click", () => {
  if (answering) stop();
  else view().clear();
});
at("forget").addEventListener("click", async () => {
  await forget(chosenModel(site.models));
  await describe();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && answering) stop();
});

at("unstarted").remove();
open();
