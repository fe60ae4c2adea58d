// The fields below the text. A model's own values stand in them until they are changed.

const FIELDS = { temperature: "temperature", top_p: "top-p", max_tokens: "max-tokens", seed: "seed" };

/** Put a model's values into the fields. */
export function showSettings({ facts }) {
  const values = {
    temperature: facts.sampling.temperature,
    top_p: facts.sampling.top_p,
    max_tokens: Math.min(facts.completion ? 128 : 1024, facts.context_window_size),
  };
  for (const [name, id] of Object.entries(FIELDS)) {
    document.getElementById(id).value = values[name] ?? "";
  }
  document.getElementById("max-tokens").max = facts.context_window_size;
}

/**
 * The fields as WebLLM takes them; what is empty is left out.
 * @returns {object | null} null if a value is impossible; the browser then says which
 */
export function readSettings() {
  const settings = {};
  for (const [name, id] of Object.entries(FIELDS)) {
    const field = document.getElementById(id);
    if (!field.checkValidity()) {
      field.closest("details").open = true;
      field.reportValidity();
      return null;
    }
    if (field.value !== "") settings[name] = field.valueAsNumber;
  }
  return settings;
}
