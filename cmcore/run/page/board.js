// A picture to draw on, at its own resolution: a mask over it, or paint on it. By mouse, finger or keyboard.

import { loaded } from "./pictures.js";

const KEPT = 30;

export class Board {
  constructor(box, drawn) {
    this.box = box;
    [this.picture, this.mask] = box.querySelectorAll("canvas");
    this.cursor = box.querySelector(".cursor");
    this.drawn = drawn;
    this.tool = "mask";
    this.size = 3;
    this.colour = "#fff";
    this.past = [];
    this.at = { x: 0, y: 0 };
    this.filled = false;
    this.#listen();
  }

  resize(width, height) {
    for (const canvas of [this.picture, this.mask]) Object.assign(canvas, { width, height });
    this.at = { x: Math.floor(width / 2), y: Math.floor(height / 2) };
    this.past = [];
    this.filled = false;
  }

  async put(source) {
    const image = await loaded(source);
    this.past = [];
    this.#pen(this.picture).drawImage(image, 0, 0, this.picture.width, this.picture.height);
    this.#pen(this.mask).clearRect(0, 0, this.mask.width, this.mask.height);
    this.original = this.#taken(this.picture);
    this.filled = true;
  }

  get masked() {
    return this.#taken(this.mask).data.some((v) => v);
  }

  clear() {
    if (!this.filled) return;
    this.#remember();
    this.#pen(this.picture).putImageData(this.original, 0, 0);
    this.#pen(this.mask).clearRect(0, 0, this.mask.width, this.mask.height);
  }

  undo() {
    const last = this.past.pop();
    if (!last) return false;
    this.#pen(this.picture).putImageData(last[0], 0, 0);
    this.#pen(this.mask).putImageData(last[1], 0, 0);
    return true;
  }

  // The mask as a picture that is white where it was painted, for a PNG without transparency.
  whiteOnBlack() {
    const canvas = document.createElement("canvas"), taken = this.#taken(this.mask);
    Object.assign(canvas, { width: taken.width, height: taken.height });
    for (let i = 0; i < taken.data.length; i += 4) {
      taken.data.fill(taken.data[i + 3] ? 255 : 0, i, i + 3);
      taken.data[i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(taken, 0, 0);
    return canvas;
  }

  #pen(canvas) { return canvas.getContext("2d", { willReadFrequently: true }); }

  #taken(canvas) { return this.#pen(canvas).getImageData(0, 0, canvas.width, canvas.height); }

  #remember() {
    this.past.push([this.#taken(this.picture), this.#taken(this.mask)]);
    if (this.past.length > KEPT) this.past.shift();
  }

  // Whole pixels, without smoothing: a pixel is drawn on or it is not.
  #dab(x, y) {
    const pen = this.#pen(this.tool === "mask" ? this.mask : this.picture);
    pen.fillStyle = this.tool === "mask" ? getComputedStyle(this.box).getPropertyValue("--mask") : this.colour;
    const half = this.size / 2;
    for (let j = Math.ceil(y - half); j < y + half; j++) {
      for (let i = Math.ceil(x - half); i < x + half; i++) {
        if ((i - x) ** 2 + (j - y) ** 2 <= half ** 2) pen.fillRect(i, j, 1, 1);
      }
    }
  }

  #line(from, to) {
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(to.x - from.x, to.y - from.y)));
    for (let k = 0; k <= steps; k++) this.#dab(from.x + ((to.x - from.x) * k) / steps, from.y + ((to.y - from.y) * k) / steps);
  }

  #place(event) {
    const box = this.picture.getBoundingClientRect();
    const x = ((event.clientX - box.left) * this.picture.width) / box.width, y = ((event.clientY - box.top) * this.picture.height) / box.height;
    return { x: x - 0.5, y: y - 0.5 };
  }

  #showCursor(there) {
    this.cursor.hidden = !there;
    const scale = this.picture.getBoundingClientRect().width / this.picture.width;
    Object.assign(this.cursor.style, {
      left: `${(this.at.x + 0.5) * scale}px`, top: `${(this.at.y + 0.5) * scale}px`, width: `${this.size * scale}px`, height: `${this.size * scale}px`,
    });
  }

  #listen() {
    let last = null;
    this.box.addEventListener("pointerdown", (event) => {
      if (!this.filled || this.tool === "none" || event.button) return;
      this.box.setPointerCapture(event.pointerId);
      this.#remember();
      last = this.#place(event);
      this.#dab(last.x, last.y);
    });
    this.box.addEventListener("pointermove", (event) => {
      if (!last) return;
      for (const moved of event.getCoalescedEvents?.() || [event]) {
        const now = this.#place(moved);
        this.#line(last, now);
        last = now;
      }
    });
    const end = () => { if (last) { last = null; this.drawn(); } };
    this.box.addEventListener("pointerup", end);
    this.box.addEventListener("pointercancel", end);
    this.box.addEventListener("focus", () => this.#showCursor(this.box.matches(":focus-visible")));
    this.box.addEventListener("blur", () => this.#showCursor(false));
    this.box.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      const draws = event.key === " " || event.key === "Enter";
      if ((!way && !draws) || !this.filled) return;
      event.preventDefault();
      const from = { ...this.at };
      if (way) {
        this.at.x = Math.min(this.picture.width - 1, Math.max(0, this.at.x + way[0]));
        this.at.y = Math.min(this.picture.height - 1, Math.max(0, this.at.y + way[1]));
      }
      this.#showCursor(true);
      if (this.tool === "none" || !(draws || event.shiftKey)) return;
      this.#remember();
      this.#line(from, this.at);
      this.drawn();
    });
  }
}
