// Elements from words. Whatever text comes from data becomes a text node, never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, props, children) {
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "on") for (const [event, f] of Object.entries(value)) element.addEventListener(event, f);
    else if (key === "value") element.value = value;
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);
export const svg = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

// A name that somebody else chose: its direction stays its own.
export const named = (text, tag = "span") => h(tag, { class: "name", dir: "auto" }, text);

export function choice(title, options, value, changed, props = {}) {
  const select = h("select", { on: { change: () => changed(select.value) } },
    options.map(([key, text]) => h("option", { value: key }, text)));
  select.value = value;
  return h("label", props, h("span", {}, title), select);
}

export const percent = (p) => (p >= 0.9995 || p <= 0 ? `${(100 * p).toFixed(0)} %` : p < 0.001 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);

let clearing = 0;
export function tell(text) {
  const told = document.getElementById("told");
  told.textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => (told.textContent = ""), 6000);
}

export const problemList = (problems) =>
  h("div", { class: "problems", role: "alert" }, h("ul", {}, problems.map((text) => named(text, "li"))));
