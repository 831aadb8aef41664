// Labelling by keyboard. A label is on the disk before the next figure comes.

import { ask, image, send } from "./api.js";
import { bars, summary } from "./bars.js";
import { choice, h, named, problemList, tell } from "./dom.js";
import { NAMES } from "./subtypes.js";
import { view } from "./view.js";

const REFRESH_MS = 5000;

export async function show(root, context) {
  const closing = { now: () => {} };
  begin(root, context, closing);
  return () => closing.now();
}

function begin(root, context, closing) {
  const name = h("input", { type: "text", name: "reviewer", required: true, maxlength: 40, autocomplete: "off", spellcheck: "false" });
  const blind = h("input", { type: "checkbox", checked: true, disabled: context.about.blind });
  const told = h("div", {});
  const start = async (event) => {
    event.preventDefault();
    try {
      const state = await send("/web/reviews", { name: name.value.trim(), blind: blind.checked });
      work(root, context, closing, state);
    } catch (error) {
      told.replaceChildren(problemList(error.problems ?? ["This failed. Load the page again."]));
      name.focus();
    }
  };
  root.replaceChildren(h("div", { class: "plain begin" }, h("h1", {}, "Review labels"),
    h("p", {}, `Give each of ${context.about.n.toLocaleString("en")} figures a subtype with the keys 1 to 8. Every label is saved at once, in ${context.about.reviews}; stop and come back under the same name when you like.`),
    h("form", { on: { submit: start } },
      h("label", {}, h("span", {}, "Your name, as the rater will be called: letters, digits, _ and -"), name),
      h("label", { class: "check" }, blind, h("span", {}, "Blind: these pages of review show neither the model nor other raters")),
      h("button", { type: "submit", class: "main" }, "Begin")), told));
  name.focus();
}

function work(root, context, closing, state) {
  const { name, labels } = state;
  const url = `/web/reviews/${encodeURIComponent(name)}`;
  let order = state.order;
  let at = Math.max(order.findIndex((n) => labels[n] < 0), 0);
  let queue = Promise.resolve();
  const open = !state.blind && !context.about.blind;
  const picture = h("div", {}), others = h("section", { class: "others", "aria-label": "Others" });
  const agreement = h("div", {});
  const saved = h("p", { class: "saved", role: "status" });
  const count = h("span", {}), progress = h("progress", { max: order.length, "aria-label": "Labelled" }), place = h("span", { class: "soft" });
  const keys = h("div", { class: "keys", role: "group", "aria-label": "Subtypes" }, NAMES.map((text, s) =>
    h("button", { type: "button", "data-subtype": s, "aria-keyshortcuts": String(s + 1), on: { click: () => give(s) } }, h("kbd", { "aria-hidden": "true" }, String(s + 1)), text)));
  const told = h("div", {});
  root.replaceChildren(h("div", { class: "plain review" },
    h("div", { class: "progress" }, h("h1", {}, `Review by ${name}`), state.blind ? h("strong", {}, "blind") : null, count, progress, place),
    h("section", { "aria-label": "Figure" }, picture),
    h("section", { class: "labelling", "aria-label": "Labels" }, keys, saved,
      h("p", { class: "row" }, h("button", { type: "button", on: { click: () => undo() } }, "Undo (U)"),
        h("button", { type: "button", on: { click: () => move(-1) } }, "← Back"), h("button", { type: "button", on: { click: () => move(1) } }, "Skip →"),
        h("button", { type: "button", on: { click: () => unlabelled() } }, "Next without a label (N)")),
      state.by_doubt ? choice("Order", [["random", "random"], ["doubt", "rank of the label audit"]], "random", (value) => {
        order = value === "doubt" ? state.by_doubt : state.order;
        at = Math.max(order.findIndex((n) => labels[n] < 0), 0);
        draw();
      }) : null,
      h("p", { class: "soft hint" }, h("kbd", {}, "1"), " to ", h("kbd", {}, "8"), " label, ", h("kbd", {}, "U"), " undo, ", h("kbd", {}, "←"), " ", h("kbd", {}, "→"), " move, ", h("kbd", {}, "0"), " take the label away"),
      exports(context, url, told), told), others));

  // Key presses are saved one after the other, in their order.
  function give(subtype) {
    const number = order[at]; // what the reviewer sees at the key press, not when its turn comes
    queue = queue.then(async () => {
      saved.className = "saved";
      saved.textContent = "Saving …";
      try {
        await send(`${url}/labels`, { number, subtype });
      } catch (error) {
        saved.className = "saved failed";
        saved.textContent = `Not saved: ${(error.problems ?? ["try again."]).join(" ")}`;
        return;
      }
      labels[number] = subtype ?? -1;
      saved.className = "saved done";
      saved.textContent = subtype === null ? "Label taken away." : `Saved: ${NAMES[subtype]}`;
      if (subtype !== null && order[at] === number && at < order.length - 1) at += 1;
      draw();
    });
  }
  function undo() {
    queue = queue.then(async () => {
      try {
        const { number, subtype } = await send(`${url}/undo`, {});
        if (number === null) saved.textContent = "There is nothing to undo.";
        else {
          labels[number] = subtype;
          at = Math.max(order.indexOf(number), 0);
          saved.textContent = subtype < 0 ? "Undone." : `Undone: it is ${NAMES[subtype]} again.`;
        }
        saved.className = "saved";
        draw();
      } catch (error) {
        saved.className = "saved failed";
        saved.textContent = `Not undone: ${(error.problems ?? ["try again."]).join(" ")}`;
      }
    });
  }
  function move(step) {
    at = Math.min(Math.max(at + step, 0), order.length - 1);
    draw();
  }
  function unlabelled() {
    const next = [...order.keys()].find((k) => k > at && labels[order[k]] < 0) ?? order.findIndex((n) => labels[n] < 0);
    if (next < 0) tell("Every figure has a label.");
    else { at = next; draw(); }
  }
  function draw() {
    const number = order[at];
    const given = labels.filter((label) => label >= 0).length;
    count.textContent = `${given.toLocaleString("en")} of ${order.length.toLocaleString("en")} labelled`;
    progress.value = given;
    place.textContent = `figure ${at + 1}`;
    picture.replaceChildren(view(number, context.about.mpp ?? NaN, "Figure to be labelled").box);
    [...keys.children].forEach((key, s) => key.setAttribute("aria-pressed", String(labels[number] === s)));
    for (const ahead of order.slice(at + 1, at + 4)) new Image().src = image(ahead); // comes at once then
    if (open) tellOthers(number);
  }
  let asking = null;
  async function tellOthers(number) {
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    try {
      const [record] = await Promise.all([ask(`${url}/others/${number}`, { signal }), tellKappas(signal)]);
      const said = [...Object.entries(record.labels), ...Object.entries(record.reviewers)].filter(([, s]) => s >= 0);
      others.replaceChildren(h("h2", {}, named(record.patch_id)),
        bars(record.answer, said, record.answer ? `The model: ${summary(record.answer)}` : "Others"), agreement);
    } catch (error) {
      if (error.problems) others.replaceChildren(problemList(error.problems));
    }
  }
  async function tellKappas(signal) {
    const { pairs } = await ask(`${url}/agreement`, { signal });
    agreement.replaceChildren(kappas(pairs));
  }
  const pressed = (event) => {
    if (event.target.closest("input, select, textarea") || event.altKey) return;
    const undoing = event.key.toLowerCase() === "u" || event.key === "Backspace" || ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z");
    if ((event.ctrlKey || event.metaKey) && !undoing) return;
    if (event.repeat && !event.key.startsWith("Arrow")) return; // a key that is held is one label
    if (event.key >= "1" && event.key <= "8" && event.key.length === 1) give(Number(event.key) - 1);
    else if (event.key === "0" || event.key === "Delete") give(null);
    else if (undoing) undo();
    else if (event.key === "ArrowRight") move(1);
    else if (event.key === "ArrowLeft") move(-1);
    else if (event.key.toLowerCase() === "n") unlabelled();
    else return;
    event.preventDefault();
  };
  addEventListener("keydown", pressed);
  // Others may label at the same time.
  const timer = setInterval(() => { if (open && !document.hidden) tellKappas().catch(() => {}); }, REFRESH_MS);
  closing.now = () => { clearInterval(timer); asking?.abort(); removeEventListener("keydown", pressed); };
  draw();
  if (!context.about.n) tell("There is no figure to review.");
}

function kappas(pairs) {
  if (!pairs.length) return h("p", { class: "soft" }, "κ: nobody else has labelled these figures.");
  return h("table", { class: "kappas" }, h("caption", { class: "hidden-title" }, "Agreement"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "text" }, "Raters"), h("th", { scope: "col" }, "κ"), h("th", { scope: "col" }, "Equal"), h("th", { scope: "col" }, "Figures"))),
    h("tbody", {}, pairs.map(({ raters, kappa, agree, n }) => h("tr", {}, h("th", { scope: "row" }, named(raters.join(" – "))),
      h("td", {}, kappa === null ? "–" : kappa.toFixed(2)), h("td", {}, `${(100 * agree).toFixed(0)} %`), h("td", {}, n.toLocaleString("en"))))));
}

function exports(context, url, told) {
  const { exports: can } = context.about;
  const cohort = async () => {
    try {
      const made = await send(`${url}/cohort`, {});
      told.replaceChildren(h("p", { role: "status" }, `${made.labels} labels are the column ${made.column} of the new cohort `, named(made.folder, "code"), ". The cohort that was reviewed is as it was."));
    } catch (error) {
      told.replaceChildren(problemList(error.problems ?? ["The export failed."]));
    }
  };
  const geojson = async () => {
    try {
      const content = await ask(`${url}/qupath.geojson`);
      const link = h("a", { href: URL.createObjectURL(new Blob([JSON.stringify(content)], { type: "application/geo+json" })), download: "review.geojson" });
      link.click();
      URL.revokeObjectURL(link.href);
    } catch (error) {
      told.replaceChildren(problemList(error.problems ?? ["The export failed."]));
    }
  };
  const slides = async () => {
    try {
      const made = await send(`${url}/qupath`, {});
      told.replaceChildren(h("p", { role: "status" }, `One GeoJSON for each of ${made.slides} slides is in `, named(made.folder, "code"), ". Open it in QuPath on its slide."));
    } catch (error) {
      told.replaceChildren(problemList(error.problems ?? ["The export failed."]));
    }
  };
  return h("p", { class: "row" },
    can.slides ? h("button", { type: "button", on: { click: slides } }, "Export GeoJSON for QuPath") : null,
    can.cohort ? h("button", { type: "button", on: { click: cohort } }, "Export as a cohort") : null,
    can.geojson ? h("button", { type: "button", on: { click: geojson } }, "Export GeoJSON for QuPath") : null);
}
