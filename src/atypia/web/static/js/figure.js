// One figure: its picture, what raters and models say, why, and which figures are like it.

import { ask, image, picture } from "./api.js";
import { bars, summary } from "./bars.js";
import { choice, h, named, percent, problemList } from "./dom.js";
import { NAMES, why } from "./subtypes.js";
import { drawing, heatLayer, view } from "./view.js";

const TARGETS = [...NAMES, "Any atypical"];

export async function show(root, context, { rest }) {
  const number = Number(rest[0]);
  if (!Number.isInteger(number) || number < 0) throw { problems: ["There is no such figure."] };
  const [figure, table] = await Promise.all([ask(`/web/figures/${number}`), context.table()]);
  context.current = number;
  const list = context.selection?.figures.includes(number) ? context.selection.figures : table.order;
  const at = list.indexOf(number);
  const go = (step) => { const next = list[at + step]; if (next !== undefined) location.hash = `#/figure/${next}`; };
  const back = () => { location.hash = context.selection?.back || "#/explorer"; };
  const said = Object.entries(figure.labels).filter(([, s]) => s >= 0);
  const looked = view(number, figure.mpp, `Figure ${figure.patch_id}`);
  const explained = h("section", { class: "reading", "aria-label": "Reading by rules" });
  const near = h("section", { class: "wide-part", "aria-label": "Figures like it" });
  const stop = new AbortController();
  const page = h("div", { class: "plain figure" },
    h("header", {}, h("h1", { tabindex: -1 }, named(figure.patch_id)),
      h("span", { class: "soft" }, `${at + 1} of ${list.length}`),
      h("button", { type: "button", disabled: at <= 0, on: { click: () => go(-1) } }, "← Previous"),
      h("button", { type: "button", disabled: at >= list.length - 1, on: { click: () => go(1) } }, "Next →"),
      h("button", { type: "button", on: { click: back } }, "All figures")),
    h("section", { "aria-label": "Picture" }, looked.box, tools(figure, looked, stop), explained),
    h("section", { "aria-label": "Answers" }, figure.answer ? verdict(figure.answer) : null,
      bars(figure.answer, said, figure.answer ? "Every subtype" : "The raters"),
      figure.answer ? partNote(figure) : null,
      figure.second ? bars(figure.second, [], [named(figure.second.name), `: ${summary(figure.second)}`]) : null,
      facts(figure)),
    near);
  root.replaceChildren(page);
  root.scrollTop = 0;
  const keys = (event) => {
    if (event.target.closest("input, select, textarea") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowLeft") go(-1);
    else if (event.key === "ArrowRight") go(1);
    else if (event.key === "Escape") back();
    else return;
    event.preventDefault();
  };
  addEventListener("keydown", keys);
  if (document.activeElement === document.body) page.querySelector("h1").focus({ preventScroll: true });
  if (figure.can.reading) reading(explained, number, looked, stop).catch(() => {});
  else explained.append(h("p", { class: "soft" }, "A reading by rules is not available here."));
  neighbours(near, figure, table, stop);
  return () => { stop.abort(); removeEventListener("keydown", keys); };
}

function verdict(answer) {
  if (why(answer.status)) return h("div", { class: "verdict" },
    h("p", { class: "said" }, h("strong", {}, summary(answer))),
    h("p", {}, "The model gives no call here; its probabilities below are those it would have had for a mitotic figure."),
    answer.p_mitosis === null ? null : h("p", {}, `Probability of a mitotic figure: ${percent(answer.p_mitosis)}.`));
  const p = answer.probabilities[answer.predicted], largest = answer.probabilities.indexOf(Math.max(...answer.probabilities));
  return h("div", { class: "verdict", "data-subtype": answer.predicted },
    h("p", { class: "said" }, h("strong", {}, NAMES[answer.predicted]), h("span", { class: "soft" }, ` ${percent(p)} by the model`)),
    h("p", {}, `${summary(answer)} at the model's threshold.`),
    answer.set === null ? null : h("p", {}, `Prediction set: ${answer.set.length ? answer.set.map((s) => NAMES[s]).join(", ") : "empty"}.`),
    largest === answer.predicted ? null : h("p", { class: "soft" }, `${NAMES[largest]} is more probable; the model gives rare subtypes more weight when it chooses.`));
}

function facts(figure) {
  const vote = { "-1": null, 0: "normal", 1: "atypical" };
  const pairs = [["Patient", named(figure.patient)], figure.domain && ["Domain", named(figure.domain)], figure.scanner && ["Scanner", named(figure.scanner)],
    ...Object.entries(figure.labels).map(([who, s]) => [who, s < 0 ? "no label" : NAMES[s]]),
    ...votes(figure, vote),
    figure.doubt && ["Label audit", audit(figure.doubt)],
    figure.place && ["Place", `${figure.place[0]}, ${figure.place[1]} px`]].filter(Boolean);
  return h("dl", { class: "facts" }, pairs.map(([term, text]) => [h("dt", {}, term), h("dd", { dir: "auto" }, text)]));
}

function votes(figure, vote) {
  const given = Object.entries(figure.votes).filter(([, v]) => v >= 0);
  return given.length ? [["Votes", given.map(([who, v]) => `${who} ${vote[v]}`).join(", ")]] : [];
}

function audit(doubt) {
  const place = `rank ${doubt.rank} of ${doubt.of}`;
  return doubt.issue ? `${doubt.label} is probably wrong (${place}): ${NAMES[doubt.suggested]} suggested, ${doubt.evidence}`
    : `no doubt about ${doubt.label} (${place})`;
}

function partNote(figure) {
  const { part, fold } = figure.answer;
  const text = { "out of fold": `Answered by the member whose training left fold ${fold} out.`,
    test: "Of the test part.", given: "From the table that was given." }[part];
  return h("p", { class: "soft" }, text);
}

function tools(figure, looked, stop) {
  if (!figure.can.heat.length) return h("p", { class: "soft" }, "Heat maps are not available for this model.");
  const layer = heatLayer(looked.box, 0.6);
  const told = h("p", { class: "soft heat-told", role: "status" });
  const made = new Map(); // maps of this figure, by their address
  let method = figure.can.heat[0][0], target = "", turn = 0;
  async function load() {
    const mine = ++turn;
    layer.hidden = true;
    looked.box.classList.remove("explained");
    told.textContent = "";
    if (target === "") return;
    const path = `/web/figures/${figure.number}/heat/${method}/${target}.png`;
    try {
      if (!made.has(path)) {
        told.textContent = "Being computed, averaged over the networks and eight views; it may take a minute …";
        made.set(path, URL.createObjectURL(await picture(path, { signal: stop.signal })));
      }
      if (mine !== turn) return;
      layer.src = made.get(path);
      layer.hidden = false;
      looked.box.classList.add("explained");
      told.replaceChildren(...[h("span", { class: "for" }, "■"), ` speaks for ${TARGETS[target].toLowerCase()}, `, h("span", { class: "against" }, "■"), " against it. A map shows where the loaded model looks, not that it is right."]);
    } catch (error) {
      if (mine === turn && error.problems) told.replaceChildren(problemList(error.problems));
    }
  }
  stop.signal.addEventListener("abort", () => { for (const url of made.values()) URL.revokeObjectURL(url); });
  const slider = h("input", { type: "range", min: 0, max: 1, step: 0.05, value: 0.6, on: { input: () => (layer.style.opacity = slider.value) } });
  return h("div", { class: "tools" },
    choice("Heat map: what speaks for", [["", "none"], ...TARGETS.map((name, s) => [String(s), name])], "", (value) => { target = value; load(); }),
    choice("Method", figure.can.heat, method, (value) => { method = value; load(); }),
    h("label", {}, h("span", {}, "Opacity"), slider), told);
}

async function reading(place, number, looked, stop) {
  try {
    const told = await ask(`/web/figures/${number}/reading`, { signal: stop.signal });
    const draw = () => drawing(looked.box, told, [looked.patch.naturalWidth, looked.patch.naturalHeight]);
    if (looked.patch.complete) draw();
    else looked.patch.addEventListener("load", draw, { once: true });
    const shown = h("input", { type: "checkbox", checked: true, on: { change: () => { looked.box.querySelector("svg").style.display = shown.checked ? "" : "none"; } } });
    const [first, ...more] = told.text.split(/(?<=\.) (?=(?:For|Against|Next) )/);
    place.replaceChildren(h("h2", {}, "Reading by rules"), h("p", { class: "gist" }, first), ...more.map((text) => h("p", {}, text)),
      h("label", { class: "check" }, shown, h("span", {}, "Draw the measurements on the picture")),
      h("details", {}, h("summary", {}, "Every measurement"), h("ul", { class: "measured" }, told.measures.map((text) => h("li", {}, text)))));
  } catch (error) {
    if (error.problems) place.replaceChildren(problemList(error.problems));
  }
}

async function neighbours(place, figure, table, stop) {
  place.append(h("h2", {}, "Labelled figures like it"));
  const body = h("div", { "aria-live": "polite" });
  place.append(body);
  if (!figure.can.neighbours) {
    body.append(h("p", { class: "soft" }, "This model gives no features to compare figures by, or none is labelled."));
    return;
  }
  try {
    while (!stop.signal.aborted) {
      const found = await ask(`/web/figures/${figure.number}/neighbours?label=${encodeURIComponent(figure.label)}`, { signal: stop.signal });
      if (found.state === "failed") throw { problems: [found.why] };
      if (found.state === "ready") {
        const labels = table.says(figure.label), patient = table.group("patient");
        body.replaceChildren(h("p", { class: "soft" }, `Nearest by the features of the model's first network; labels of ${figure.label}.`),
          h("ol", { class: "neighbours" }, found.neighbours.map(({ number, similarity }) =>
            h("li", { "data-subtype": labels[number] }, h("a", { href: `#/figure/${number}` },
              h("img", { src: image(number), alt: "", loading: "lazy" }),
              h("span", { class: "swatch" }), NAMES[labels[number]], h("br"),
              h("small", {}, `cosine ${similarity.toFixed(2)}${patient.codes[number] === patient.codes[figure.number] ? ", same patient" : ""}`))))));
        return;
      }
      body.replaceChildren(h("p", { class: "soft" }, `The model's features are being read, once for all figures: ${found.done.toLocaleString("en")} of ${found.of.toLocaleString("en")}.`));
      await new Promise((later) => setTimeout(later, 1500));
    }
  } catch (error) {
    if (error.problems && !stop.signal.aborted) body.replaceChildren(problemList(error.problems));
  }
}
