// Text of a model as elements: paragraphs as they are, code between fences and backquotes set apart.
// Nothing is parsed as HTML.

const FENCE = /^```[^\n]*\n([\s\S]*?)(?:^```[^\S\n]*$\n?|$(?![\s\S]))/gm;

/** Replace what is in `element` by `text`. */
export function render(element, text) {
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(FENCE)) {
    if (found.index > at) parts.push(prose(text.slice(at, found.index)));
    const block = document.createElement("pre");
    block.append(make("code", found[1].replace(/\n$/, "")));
    parts.push(block);
    at = found.index + found[0].length;
  }
  if (at < text.length) parts.push(prose(text.slice(at)));
  element.replaceChildren(...parts);
}

function prose(text) {
  const paragraph = document.createElement("p");
  text.trim().split(/`([^`\n]+)`/).forEach((piece, index) => {
    if (piece) paragraph.append(index % 2 ? make("code", piece) : piece);
  });
  return paragraph;
}

function make(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}
