// WebLLM only writes to the console when the GPU reports an error or is lost while a model computes.
// The page wants to say so, and listens on every device that is made in this worker.

/** @param {(problem: {kind: string, message: string}) => void} report is told of each */
export function watchDevices(report) {
  const adapter = globalThis.GPUAdapter?.prototype;
  if (!adapter) return;
  const { requestDevice } = adapter;
  adapter.requestDevice = async function requestWatchedDevice(...args) {
    const device = await requestDevice.apply(this, args);
    device.addEventListener("uncapturederror", ({ error }) => {
      report({ kind: error.constructor.name, message: error.message });
    });
    device.lost.then(({ reason, message }) => {
      if (reason !== "destroyed") report({ kind: "lost", message });
    });
    return device;
  };
}
