// The pictures are computed in this browser, by onnxruntime-web: nothing is sent anywhere.

import * as ort from "./ort.wasm.min.mjs";
import { editTimes, multistep, refined, spherical } from "./editing.js";
import { noise } from "./noise.js";
import { element, loaded } from "./pictures.js";

// More threads need a server that isolates the page, which a plain one does not.
ort.env.wasm.numThreads = 1;

let known = null;
const sessions = {};

export async function about() {
  const response = await fetch("about.json");
  if (!response.ok) throw new Error("The folder of this page lacks its about.json.");
  known = await response.json();
  return known;
}

// A file of the model, loaded when it is first asked for.
function session(name) {
  sessions[name] ??= ort.InferenceSession.create(`${name}.onnx`, { executionProviders: ["wasm"] });
  return sessions[name];
}

async function evaluated(name, inputs, output, n, labels) {
  const { shape } = known.models[0], model = await session(name), given = {};
  for (const [key, values] of Object.entries(inputs)) given[key] = new ort.Tensor("float32", values, key === "t" ? [n] : [n, ...shape]);
  if (labels) given.label = new ort.Tensor("int32", Int32Array.from(labels), [n]);
  return (await model.run(given))[output].data;
}

export async function run(request) {
  const [model] = known.models, { shape, classes, times } = model, n = request.n ?? 1, size = shape[0] * shape[1] * shape[2];
  if (!model.tasks.includes(request.task)) throw new Error(`This page cannot ${request.task}.`);
  const chosen = request.label === undefined ? -1 : classes.indexOf(request.label);
  const labels = classes.length ? Array.from({ length: n }, (_, i) => (chosen < 0 ? i % classes.length : chosen)) : null;
  const many = (seed, draw) => joined(Array.from({ length: n }, (_, i) => noise(seed, i, draw, size)));
  const f = (x, t) => evaluated("evaluation", { x, t: new Float32Array(n).fill(t) }, "f", n, labels);
  const generated = (z) => evaluated("generator", { z }, "x", n, labels);
  const frames = [], seeded = (draw) => many(request.seed, draw);
  const given = request.picture && (await pixels(request.picture));
  const mask = request.mask && (await pixels(request.mask));
  // What is loaded first is not counted.
  await Promise.all([session("generator"), request.task === "sample" ? null : session("evaluation")]);
  const start = performance.now();
  let x = null;
  if (request.task === "interpolate") {
    const pairs = Array.from({ length: n }, (_, i) => [request.seed, request.seed_b].map((seed) => noise(seed, i, 0, size)));
    x = await generated(joined(pairs.map(([a, b]) => spherical(a, b, request.share))));
  } else if (request.task === "sample") {
    const way = sampleTimes(request, times);
    if (way.length === 1 && !request.times) x = await generated(seeded(0));
    else x = await multistep(f, way, seeded, model.arrival, (i, t, now) => frames.push({ said: `after evaluation ${i + 1} of ${way.length}, t = ${Number(t.toPrecision(4))}`, values: now }));
  } else {
    x = await edited(request, model, given, mask, f, seeded, n);
  }
  const milliseconds = performance.now() - start, shown = (values) => split(values, n).map((one) => drawn(one, shape));
  const values = split(x, n).map((one) => one.map((v) => Math.min(1, Math.max(-1, v))));
  return {
    pictures: values.map((one) => drawn(one, shape)),
    frames: frames.length > 1 ? frames.map((frame) => ({ said: frame.said, pictures: shown(frame.values) })) : [],
    milliseconds,
    notes: [],
    values,
  };
}

function sampleTimes(request, times) {
  if (request.times) {
    const [most, least] = [known.models[0].t_max, known.models[0].t_min];
    const falls = request.times.every((t, i) => i === 0 || t < request.times[i - 1]);
    if (!falls || request.times[0] > most * (1 + 1e-6) || request.times.at(-1) < least) throw new Error(`The times must decrease, from at most ${most} to at least ${least}.`);
    if (times.length < 2) throw new Error("This model's sampler takes one step in a browser.");
    return request.times;
  }
  const steps = request.steps ?? 1;
  if (steps > times.length) throw new Error(`In a browser this model takes at most ${times.length} step${times.length > 1 ? "s" : ""}.`);
  return times[steps - 1];
}

async function edited(request, model, given, mask, f, seeded, n) {
  const repeated = (one) => joined(Array(n).fill(one));
  if (request.task === "inpaint") {
    const way = editTimes(request.steps ?? model.edit_steps, model.t_min, model.t_max), kept = mask.map((v) => (v > -1 ? 0 : 1));
    const start = given.map((v, i) => (kept[i] ? v : 0)), picture = repeated(given), here = repeated(kept);
    const x = await refined(f, repeated(start), { mask: here, picture }, way, seeded, model.arrival);
    return x.map((v, i) => (here[i] ? picture[i] : v));
  }
  const way = request.task === "stroke" ? model.stroke_times : model.stroke_times.slice(-1);
  return refined(f, repeated(given), null, way, seeded, model.arrival);
}

export async function fit(file) {
  const [, height, width] = known.models[0].shape;
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    throw new Error("The file is no picture of a kind that can be read, such as a PNG or a JPEG.");
  }
  // Its central part, of the model's aspect.
  const scale = Math.min(image.width / width, image.height / height), wide = width * scale, high = height * scale;
  const canvas = element("canvas", { width, height }), pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(image, (image.width - wide) / 2, (image.height - high) / 2, wide, high, 0, 0, width, height);
  const one = await pixels(canvas.toDataURL("image/png").split(",")[1]);
  const note = image.width === width && image.height === height ? "" : `The picture was resized from ${image.width} x ${image.height} to ${width} x ${height}.`;
  return { picture: drawn(one, known.models[0].shape), note };
}

// A PNG's numbers in [-1, 1], channels first, of the model's shape.
async function pixels(png) {
  const [channels, height, width] = known.models[0].shape, canvas = element("canvas", { width, height });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(await loaded(`data:image/png;base64,${png}`), 0, 0, width, height);
  const { data } = pen.getImageData(0, 0, width, height), out = new Float32Array(channels * height * width);
  for (let i = 0; i < height * width; i++) {
    const rgb = [data[4 * i], data[4 * i + 1], data[4 * i + 2]];
    if (channels === 1) out[i] = Math.round(0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]) / 127.5 - 1;
    else rgb.forEach((v, c) => { out[c * height * width + i] = v / 127.5 - 1; });
  }
  return out;
}

function drawn(values, [channels, height, width]) {
  const canvas = element("canvas", { width, height }), pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round(127.5 * (values[(channels === 1 ? 0 : c * height * width) + i] + 1));
    image.data[4 * i + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
  return canvas.toDataURL("image/png");
}

function joined(parts) {
  const out = new Float32Array(parts.length * parts[0].length);
  parts.forEach((part, i) => out.set(part, i * part.length));
  return out;
}

const split = (values, n) => Array.from({ length: n }, (_, i) => Float32Array.from(values.subarray((i * values.length) / n, ((i + 1) * values.length) / n)));
