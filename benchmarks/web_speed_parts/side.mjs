// Answers one JSON request per line of standard input with one line that begins with "@".
// An engine has open(request) -> facts, begin(), forward(tokens) -> logits of the last one as a
// Float32Array on the host, end().

import { createInterface } from "node:readline";

export async function serve(engine) {
  const operations = {
    open: (request) => engine.open(request),
    generate: (request) => generate(engine, request),
  };
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    let answer;
    try {
      answer = await operations[request.operation](request);
    } catch (error) {
      answer = { error: String(error?.stack ?? error) };
    }
    process.stdout.write(`@${JSON.stringify(answer)}\n`);
  }
  // Dawn keeps threads that Node.js would wait for.
  process.exit(0);
}

// The prompt in one pass, then the other tokens one by one. The most probable token is found each
// time, as for greedy text, but the next one is given: so all engines compute the same.
async function generate(engine, { tokens, prompt }) {
  const steps = [tokens.slice(0, prompt), ...tokens.slice(prompt).map((token) => [token])];
  const result = { milliseconds: [], tops: [], logits: [] };
  await engine.begin();
  for (const [index, step] of steps.entries()) {
    const began = performance.now();
    const logits = await engine.forward(step);
    let top = 0;
    for (let at = 1; at < logits.length; at++) if (logits[at] > logits[top]) top = at;
    result.milliseconds.push(performance.now() - began);
    result.tops.push(top);
    if (index === 0 || index === steps.length - 1) result.logits.push(Array.from(logits));
  }
  await engine.end();
  return result;
}
