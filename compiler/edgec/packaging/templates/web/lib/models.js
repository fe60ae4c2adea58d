// The models of this site: app-config.json, as WebLLM takes it, and edgec-models.json, with the
// size and the digest of every file.

import { Failure } from "./failure.js";

const MIB = 2 ** 20;

/**
 * Read both lists.
 * @param {URL} site the folder that they are in
 * @returns {Promise<{appConfig: object, models: {record: object, facts: object}[]}>} with URLs made
 *   absolute, as WebLLM needs them
 */
export async function readModels(site) {
  const appConfig = await readList(new URL("app-config.json", site));
  const list = await readList(new URL("edgec-models.json", site));
  const facts = new Map(list.models.map((model) => [model.model_id, model]));
  const model_list = appConfig.model_list.map((record) => ({
    ...record,
    model: new URL(record.model, site).href,
    model_lib: new URL(record.model_lib, site).href,
  }));
  const models = model_list.map((record) => {
    const found = facts.get(record.model_id);
    const library = found && `sha256-${base64(found.library.sha256)}`;
    if (!found || library !== record.integrity.model_lib) {
      throw new Failure("lists", { model: record.model_id });
    }
    return { record, facts: found };
  });
  return { appConfig: { ...appConfig, model_list }, models };
}

async function readList(url) {
  const name = url.pathname.split("/").at(-1);
  let response;
  try {
    // An older list would ask for files that the site no longer has.
    // Servers date files to the second: one written twice in a second would pass for unchanged.
    response = await fetch(url, { cache: "no-store" });
  } catch (error) {
    throw new Failure("network", { file: name, message: String(error) });
  }
  if (!response.ok) throw new Failure("missing", { files: [{ name, problem: `HTTP status ${response.status}` }] });
  try {
    return await response.json();
  } catch {
    throw new Failure("damaged", { files: [{ name, problem: "is not the list that edgec package wrote" }] });
  }
}

function base64(hex) {
  const bytes = hex.match(/../g).map((pair) => Number.parseInt(pair, 16));
  return btoa(String.fromCharCode(...bytes));
}

/**
 * The graphics processor that WebLLM will get.
 * @returns {Promise<{name: string, features: Set<string>, binding: number}>} `binding`: the largest
 *   buffer in bytes that a kernel can use
 */
export async function findDevice() {
  if (!globalThis.isSecureContext) throw new Failure("insecure", { origin: location.origin });
  if (!navigator.gpu) throw new Failure("no-webgpu");
  let adapter;
  try {
    adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  } catch (error) {
    throw new Failure("no-adapter", { message: String(error) });
  }
  if (!adapter) throw new Failure("no-adapter");
  const { limits } = adapter;
  // WebLLM asks every adapter for these; the first that is too small, it refuses by.
  for (const [limit, least] of [
    ["maxBufferSize", 256 * MIB],
    ["maxStorageBufferBindingSize", 128 * MIB],
    ["maxComputeWorkgroupStorageSize", 32768],
    ["maxStorageBuffersPerShaderStage", 10],
  ]) {
    if (limits[limit] < least) throw new Failure("weak-adapter", { limit, has: limits[limit], least });
  }
  return {
    name: deviceName(adapter.info),
    features: new Set(adapter.features),
    // Either a GiB or the smallest that WebGPU allows: WebLLM asks for nothing in between.
    binding: limits.maxStorageBufferBindingSize >= 1024 * MIB ? 1024 * MIB : 128 * MIB,
  };
}

function deviceName(info) {
  if (!info) return "";
  return info.description || [info.vendor, info.architecture].filter(Boolean).join(" ");
}

/**
 * What keeps this device from running a model.
 * @returns {{code: string, facts: object} | null}
 */
export function obstacle(model, device) {
  const { record } = model;
  const lacking = (record.required_features ?? []).filter((feature) => !device.features.has(feature));
  if (lacking.length) return { code: "feature", facts: { feature: lacking[0] } };
  if ((record.buffer_size_required_bytes ?? 0) > device.binding) {
    return { code: "buffer", facts: { needs: record.buffer_size_required_bytes, has: device.binding } };
  }
  return null;
}
