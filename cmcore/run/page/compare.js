// What came of a request, a card for each run: pictures, the time it took, the evaluations one by one, and what can be done with them.

import { download, element } from "./pictures.js";

const duration = (ms) => (ms < 10 ? `${ms.toFixed(1)} ms` : ms < 10000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

export function card(model, about) {
  const { edit, ends } = about;
  const said = element("output"), tiles = element("div", { className: "tiles" });
  const save = element("button", { type: "button", className: "small", textContent: "Download", title: "Download as PNG" });
  const bar = element("input", { type: "range", min: 0, step: 1 });
  const at = element("span"), frames = element("label", { className: "frames", hidden: true }, at, bar);
  const take = element("button", { type: "button", className: "small", textContent: "Edit it" });
  const one = element("button", { type: "button", className: "small", textContent: "Download it" });
  const which = element("span"), picked = element("div", { className: "picked", hidden: true }, which, take, one);
  const notes = element("p", { className: "notes hint", hidden: true });
  const edges = element("div", { className: "ends", hidden: true });
  const box = element("article", { className: "result" }, element("header", {}, element("h2", { textContent: model.name }), said, save), tiles, frames, picked, edges, notes);
  let made = null, chosen = -1, task = "sample";

  const shown = () => {
    const last = made.frames.length, index = last ? Number(bar.value) : 0;
    return index < last ? made.frames[index].pictures : made.pictures;
  };
  const pick = (index) => {
    chosen = chosen === index ? -1 : index;
    [...tiles.children].forEach((tile, i) => tile.setAttribute("aria-pressed", String(i === chosen)));
    picked.hidden = chosen < 0;
    which.textContent = `Picture ${chosen + 1}`;
  };
  const draw = () => {
    const sources = shown();
    if (tiles.children.length !== sources.length) {
      chosen = -1;
      picked.hidden = true;
      tiles.style.setProperty("--columns", Math.ceil(Math.sqrt(sources.length)));
      tiles.replaceChildren(...sources.map((_, i) => element("button", { type: "button", className: "tile", onclick: () => pick(i) }, element("img", { alt: `Picture ${i + 1} of ${sources.length}` }))));
      [...tiles.children].forEach((tile) => tile.setAttribute("aria-pressed", "false"));
    }
    [...tiles.children].forEach((tile, i) => { tile.firstChild.src = sources[i]; });
    const last = made.frames.length;
    at.textContent = !last || Number(bar.value) >= last ? "the result" : made.frames[Number(bar.value)].said;
    bar.setAttribute("aria-valuetext", at.textContent);
  };
  const columns = () => Math.ceil(Math.sqrt(tiles.children.length));
  bar.addEventListener("input", draw);
  save.addEventListener("click", () => made && download(shown(), columns(), `${task}.png`));
  one.addEventListener("click", () => download([shown()[chosen]], 1, `${task}-${chosen + 1}.png`));
  take.addEventListener("click", () => edit(shown()[chosen], chosen));
  if (!edit) take.hidden = true;
  box.show = (answer, of) => {
    made = answer;
    task = of;
    frames.hidden = !made.frames.length;
    bar.max = made.frames.length;
    bar.value = bar.max;
    said.textContent = duration(made.milliseconds);
    notes.hidden = !made.notes.length;
    notes.textContent = made.notes.join(" ");
    draw();
  };
  box.showEnds = (first, last) => {
    edges.hidden = !ends;
    edges.replaceChildren(...[first, last].map((source, i) => element("img", { src: source, alt: i ? "The second seed's" : "The first seed's" })));
  };
  return box;
}
