// The page: what is typed and drawn becomes requests to the engine, and its answers cards.

import { Board } from "./board.js";
import { card } from "./compare.js";
import * as engine from "./engine.js";
import { base64, element } from "./pictures.js";

const TOLD = {
  inpaint: "Paint over what is to be drawn anew; the rest stays as it is.",
  stroke: "Paint on the picture; it is made to look real, near to what was painted.",
  variations: "Pictures like this one.",
  colourise: "The picture's grey stays, and the colours are made anew.",
  upscale: "The picture is made small, and enlarged again.",
};
const TOOLS = { inpaint: "mask", stroke: "paint" };

const find = (selector, root = document) => root.querySelector(selector);
const every = (selector, root = document) => [...root.querySelectorAll(selector)];
const panels = Object.fromEntries(["sample", "edit", "interpolate"].map((name) => [name, find(`#${name}`)]));
const forms = Object.fromEntries(Object.entries(panels).map(([name, panel]) => [name, find("form", panel)]));
const cards = {};
let about = null, board = null;

// One at a time; of those that come meanwhile only the last is done.
function latest(work) {
  let running = false, next = null;
  return async (...given) => {
    next = given;
    if (running) return;
    running = true;
    find("#busy").textContent = "Computing";
    while (next) {
      const now = next;
      next = null;
      try {
        await work(...now);
        tell("");
      } catch (problem) {
        tell(problem.message);
      }
    }
    running = false;
    find("#busy").textContent = "";
  };
}

function tell(problem) {
  const place = find("#problem");
  place.textContent = problem;
  place.hidden = !problem;
}

// What the fields of a form say; what is no number is a sentence.
function read(form) {
  const given = new FormData(form), request = {};
  for (const name of ["seed", "seed_b", "n", "steps", "factor"]) {
    if (!given.has(name)) continue;
    const text = String(given.get(name)).trim(), field = form.elements[name];
    if (!/^\d+$/.test(text)) throw new Error(`${field.closest("label").firstChild.textContent.trim()} is a whole number; got ${text ? `“${text}”` : "nothing"}.`);
    request[name] = Number(text);
  }
  const times = String(given.get("times") || "").trim();
  if (times) {
    request.times = times.split(/[\s,;]+/).map(Number);
    if (request.times.some((t) => !Number.isFinite(t))) throw new Error("Times are numbers that decrease, such as 80 0.8.");
    delete request.steps;
  }
  if (given.get("label")) request.label = given.get("label");
  if (given.has("share")) request.share = Number(given.get("share")) / 100;
  return request;
}

// Each run answers, one after the other, and its card shows it.
async function asked(panel, request) {
  const made = [];
  for (let model = 0; model < about.models.length; model++) {
    const answer = await engine.run({ ...request, model });
    cards[panel][model].show(answer, request.task);
    made.push(answer);
  }
  return made;
}

const sample = latest(async () => { await asked("sample", { task: "sample", ...read(forms.sample) }); });

const edit = latest(async () => {
  if (!board.filled) await another();
  const task = new FormData(forms.edit).get("task"), { steps, factor, ...request } = read(forms.edit);
  if (task === "inpaint" && !board.masked) throw new Error("Paint over what is to be drawn anew first.");
  Object.assign(request, { task, picture: base64(board.picture) });
  if (task === "inpaint") request.mask = base64(board.whiteOnBlack());
  if (task === "upscale") request.factor = factor;
  if (task !== "stroke" && task !== "variations") request.steps = steps;
  await asked("edit", request);
});

let ends = "";
const interpolate = latest(async () => {
  const request = { task: "interpolate", ...read(forms.interpolate) };
  await asked("interpolate", request);
  const { share, ...others } = request, now = JSON.stringify(others);
  if (now === ends) return;
  ends = now;
  for (let model = 0; model < about.models.length; model++) {
    const both = [];
    for (const end of [0, 1]) both.push((await engine.run({ ...others, share: end, model })).pictures[0]);
    cards.interpolate[model].showEnds(...both);
  }
});

async function another() {
  const { seed, label } = read(forms.edit);
  const request = { task: "sample", seed, n: 1, steps: about.models[0].steps, model: 0 };
  if (label) request.label = label;
  await board.put((await engine.run(request)).pictures[0]);
}

// The class of a picture among those that a form asked for: the one chosen, or its turn.
function classOf(name, index) {
  const label = forms[name].elements.label.value, { classes } = about.models[0];
  return label || classes[index % classes.length] || "";
}

async function onto(source, label) {
  forms.edit.elements.label.value = label;
  await board.put(source);
  open("edit");
}

async function take(file) {
  const fitted = await engine.fit(file, 0);
  await board.put(fitted.picture);
  find("#told").textContent = fitted.note || TOLD[new FormData(forms.edit).get("task")];
}

function open(name) {
  for (const tab of every("[role=tab]")) {
    const chosen = tab.getAttribute("aria-controls") === name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    panels[tab.getAttribute("aria-controls")].hidden = !chosen;
  }
  tell("");
  if (name === "edit" && !board.filled) opened();
  if (name === "interpolate" && !ends) interpolate();
}

const opened = latest(another);
const taken = latest(take);

function settle() {
  const form = forms.edit, task = new FormData(form).get("task"), grey = about.models[0].shape[0] === 1;
  board.tool = TOOLS[task] || "none";
  board.mask.hidden = board.tool !== "mask";
  find("#told").textContent = TOLD[task];
  find(".steps", form).hidden = task === "stroke" || task === "variations";
  find(".factor", form).hidden = task !== "upscale";
  find(".brush").hidden = board.tool === "none";
  find("#keys").hidden = board.tool === "none";
  find(".shade").hidden = board.tool !== "paint" || !grey;
  find(".colour").hidden = board.tool !== "paint" || grey;
  board.size = Number(find("#size").value);
  const shade = Number(find("#shade").value);
  board.colour = grey ? `rgb(${shade}, ${shade}, ${shade})` : find("#colour").value;
}

function listen() {
  const tabs = every("[role=tab]");
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => open(tab.getAttribute("aria-controls")));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(i + step + tabs.length) % tabs.length];
      next.focus();
      open(next.getAttribute("aria-controls"));
    });
  });
  const act = { sample, edit, interpolate };
  for (const [name, form] of Object.entries(forms)) {
    form.noValidate = true;
    form.addEventListener("submit", (event) => { event.preventDefault(); act[name](); });
    for (const die of every(".die", form)) {
      die.addEventListener("click", () => { form.elements[die.dataset.for].value = Math.floor(Math.random() * 1e6); act[name](); });
    }
  }
  forms.interpolate.addEventListener("input", () => interpolate());
  panels.edit.addEventListener("change", settle);
  for (const id of ["#size", "#shade", "#colour"]) find(id).addEventListener("input", settle);
  find("#open").addEventListener("click", () => find("#file").click());
  find("#file").addEventListener("change", (event) => { if (event.target.files.length) taken(event.target.files[0]); event.target.value = ""; });
  find("#another").addEventListener("click", () => { forms.edit.elements.seed.value = Math.floor(Math.random() * 1e6); opened(); });
  find("#undo").addEventListener("click", () => board.undo());
  find("#clear").addEventListener("click", () => board.clear());
  addEventListener("keydown", (event) => {
    if (event.key === "z" && (event.ctrlKey || event.metaKey) && !panels.edit.hidden && !event.target.matches("input")) board.undo();
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) { open("edit"); taken(event.dataTransfer.files[0]); }
  });
}

async function start() {
  about = await engine.about();
  const [first] = about.models, [channels, height, width] = first.shape;
  const names = about.models.map((model) => model.name).join(" and ");
  find("#title").textContent = names;
  document.title = `${names} – cmcore`;
  find("#summary").textContent = [...new Set(about.models.map((model) => model.summary))].join("; ");
  find("#where").textContent = `Pictures are ${about.where}.`;
  for (const select of every("select[name=label]")) {
    select.closest("label").hidden = !first.classes.length;
    if (select.form === forms.sample) select.append(element("option", { value: "", textContent: "all in turn" }));
    select.append(...first.classes.map((name) => element("option", { value: name, textContent: name })));
  }
  for (const form of [forms.sample, forms.edit]) form.elements.steps.max = about.most_steps;
  forms.sample.elements.steps.value = first.steps;
  forms.edit.elements.steps.value = first.edit_steps;
  forms.edit.elements.factor.append(...first.factors.map((k) => element("option", { textContent: String(k) })));
  if (first.factors.includes(4)) forms.edit.elements.factor.value = "4";
  for (const input of every("input[name=task]")) input.closest("label").hidden = !about.models.every((model) => model.tasks.includes(input.value));
  for (const [name, panel] of Object.entries(panels)) {
    cards[name] = about.models.map((model) => card(model, {
      edit: name === "interpolate" ? null : (source, index) => onto(source, classOf(name, index)),
      ends: name === "interpolate",
    }));
    find(".results", panel).append(...cards[name]);
  }
  board = new Board(find("#board"), () => { if (forms.edit.elements.live.checked) edit(); });
  board.resize(width, height);
  find("#size").max = Math.max(8, Math.round(Math.min(width, height) / 3));
  find("#size").value = Math.max(2, Math.round(Math.min(width, height) / 7));
  settle();
  listen();
  document.documentElement.dataset.ready = "";
  await sample();
}

start().catch((problem) => { tell(problem.message); find("#summary").textContent = ""; });
