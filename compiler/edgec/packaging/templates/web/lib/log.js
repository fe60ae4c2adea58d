// The last warnings and errors of this worker's console: the runtime in a library says there why it
// broke off. To be imported before what writes.

const LINES = 16;
const LENGTH = 500;

/** @type {string[]} the oldest first */
export const log = [];

for (const level of ["warn", "error"]) {
  const write = console[level].bind(console);
  console[level] = (...args) => {
    log.push(args.map(String).join(" ").slice(0, LENGTH));
    log.splice(0, log.length - LINES);
    write(...args);
  };
}
