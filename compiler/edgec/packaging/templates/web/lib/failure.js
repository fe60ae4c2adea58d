// Failures that the page's own code finds. messages.js has a sentence for each code.

export class Failure extends Error {
  /**
   * @param {string} code which failure
   * @param {object} facts numbers and names for the sentence; plain data, as workers send it
   */
  constructor(code, facts = {}) {
    super(`${code} ${JSON.stringify(facts)}`);
    this.name = "Failure";
    this.code = code;
    this.facts = facts;
  }
}

/** An error as plain data: workers send no classes. */
export function toData(error) {
  return {
    name: error?.name ?? "Error",
    message: error?.message ?? String(error),
    code: error?.code,
    facts: error?.facts,
    url: error?.url,
  };
}
