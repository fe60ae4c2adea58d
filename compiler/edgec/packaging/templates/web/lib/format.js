// Numbers as people read them.

/** Bytes in decimal units, as browsers and stores count: "3.4 MB". */
export function size(bytes) {
  for (const [unit, factor] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= factor) {
      const value = bytes / factor;
      return `${value.toFixed(value < 100 ? 1 : 0)} ${unit}`;
    }
  }
  return `${bytes} bytes`;
}

/** A whole number with thin spaces between thousands. */
export function count(value) {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

/** Seconds left, roughly: "about 20 s", "about 3 min". */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "";
  return seconds < 90 ? `about ${Math.max(1, Math.round(seconds))} s` : `about ${Math.round(seconds / 60)} min`;
}

/** What a run cost, from WebLLM's usage: "42 tokens · 31.2 tokens/s · first after 0.12 s". */
export function figures(usage, finish) {
  const parts = [];
  if (usage) {
    const { extra } = usage;
    const tokens = usage.completion_tokens;
    parts.push(`${count(tokens)} ${tokens === 1 ? "token" : "tokens"}`);
    const rate = extra?.decode_tokens_per_s;
    if (Number.isFinite(rate) && rate > 0) parts.push(`${rate.toFixed(rate < 100 ? 1 : 0)} tokens/s`);
    const first = extra?.time_to_first_token_s;
    if (Number.isFinite(first)) parts.push(`first after ${first.toFixed(2)} s`);
  }
  if (finish === "abort") parts.push("stopped");
  if (finish === "length") parts.push("length limit reached");
  return parts.join(" · ");
}
