// Drop patches, stacks or a folder, and get answers.

import { ask } from "./api.js";
import { summary } from "./bars.js";
import { h, named, percent, problemList } from "./dom.js";
import { dropped, picked, portions, tooLarge } from "./files.js";
import { KEYS, NAMES, why } from "./subtypes.js";

const HIDDEN = /(^|\/)(\.|Thumbs\.db$|desktop\.ini$)/;
const SHOWN = /\.(png|jpe?g|bmp|webp)$/i;

export function show(root, { about }) {
  const urls = [];
  const mpp = h("input", { type: "number", min: 0.01, max: 10, step: "any", placeholder: "0.25" });
  const files = h("input", { type: "file", multiple: true, hidden: true, id: "files", on: { change: () => take(picked(files)) } });
  const folder = h("input", { type: "file", webkitdirectory: true, hidden: true, id: "folder", on: { change: () => take(picked(folder)) } });
  const status = h("p", { role: "status", class: "count" });
  const problems = h("div", {});
  const answers = h("ul", { class: "answers" });
  const zone = h("div", { class: "drop", on: {
    dragover: (event) => { event.preventDefault(); zone.classList.add("over"); },
    dragleave: () => zone.classList.remove("over"),
    drop: async (event) => {
      event.preventDefault();
      zone.classList.remove("over");
      let found;
      try {
        found = await dropped(event.dataTransfer);
      } catch {
        problems.replaceChildren(problemList(["What was dropped could not be read. Choose it with the buttons instead."]));
        return;
      }
      take(found);
    } } },
    h("p", {}, h("strong", {}, "Drop patches, multi-page stacks or a folder here"), h("br"), "each centred on one mitotic figure. They are sent to the server on this machine and nowhere else."),
    h("div", { class: "row" }, h("button", { type: "button", class: "main", on: { click: () => files.click() } }, "Choose files"),
      h("button", { type: "button", on: { click: () => folder.click() } }, "Choose a folder")), files, folder);
  root.replaceChildren(h("div", { class: "plain" }, h("h1", {}, "Classify"),
    h("div", { class: "drop-options" }, h("label", {}, h("span", {}, "µm per pixel, where files do not say it themselves"), mpp)), zone, status, problems, answers));

  let turn = 0;
  async function take(chosen) {
    const mine = ++turn;
    const list = chosen.filter(({ name }) => !HIDDEN.test(name));
    files.value = folder.value = "";
    problems.replaceChildren();
    answers.replaceChildren();
    for (const url of urls.splice(0)) URL.revokeObjectURL(url);
    if (!list.length) {
      status.textContent = "";
      problems.replaceChildren(problemList([chosen.length ? "There is no image in this folder." : "There was no file in what you dropped. Drop images, or a folder of them."]));
      return;
    }
    if (!mpp.checkValidity()) {
      status.textContent = "";
      problems.replaceChildren(problemList(["µm per pixel: expected a number from 0.01 to 10."]));
      mpp.focus();
      return;
    }
    const told = tooLarge(list, about.body_bytes);
    if (told.length) problems.replaceChildren(problemList(told));
    const small = list.filter((one) => !tooLarge([one], about.body_bytes).length);
    let done = 0, figures = 0, without = 0;
    for (const part of portions(small, about.body_bytes)) {
      status.textContent = `Classifying ${done + 1} to ${done + part.length} of ${small.length} …`;
      const form = new FormData();
      for (const { name, file } of part) form.append("images", file, name);
      if (mpp.value) form.append("mpp", mpp.value); // left out, a TIFF says it itself
      form.append("skip_bad", "true");
      try {
        const found = await ask("/v1/predict", { method: "POST", body: form });
        if (mine !== turn) return;
        told.push(...found.problems, ...found.warnings);
        figures += found.predictions.length;
        without += found.predictions.filter((one) => why(one.status)).length;
        answers.append(...found.predictions.map((one) => answerCard(one, part)));
      } catch (error) {
        if (mine !== turn) return;
        told.push(...(error.problems ?? ["The files could not be sent."]));
      }
      done += part.length;
      if (told.length) problems.replaceChildren(problemList(told.length > 100 ? [...told.slice(0, 100), `… and ${told.length - 100} more.`] : told));
    }
    status.textContent = `${figures} ${figures === 1 ? "figure" : "figures"} in ${list.length} ${list.length === 1 ? "file" : "files"}${without ? `; ${without} not answered` : ""}.`;
  }
  function answerCard(one, part) {
    const file = part.find(({ name }) => name === one.patch_id || name.replace(/\.[^./]+$/, "") === one.patch_id);
    let picture = h("span", { class: "picture none" }, "no preview");
    if (file && SHOWN.test(file.name)) {
      const url = URL.createObjectURL(file.file);
      urls.push(url);
      picture = h("img", { class: "picture", src: url, alt: "" });
    }
    const p = KEYS.map((key) => one.probabilities[key]);
    const s = KEYS.indexOf(one.predicted_subtype), apart = why(one.status);
    const mini = h("span", { class: "mini", role: "img", "aria-label": NAMES.map((name, i) => `${name} ${percent(p[i])}`).join(", ") },
      p.map((share, i) => { const bit = h("i", { "data-subtype": i, title: `${NAMES[i]} ${percent(share)}` }); bit.style.width = `${100 * share}%`; return bit; }));
    return h("li", { class: apart ? "apart" : null }, picture, h("div", {}, h("h2", { title: one.patch_id }, named(one.patch_id)),
      apart ? null : h("p", { "data-subtype": s }, h("span", { class: "swatch" }), h("strong", {}, NAMES[s]), ` ${percent(p[s])}`), mini,
      h("p", { class: "soft" }, summary(one)),
      one.conformal_set?.length ? h("p", { class: "soft" }, `Set: ${one.conformal_set.map((key) => NAMES[KEYS.indexOf(key)]).join(", ")}`) : null));
  }
  return () => { turn += 1; for (const url of urls) URL.revokeObjectURL(url); };
}
