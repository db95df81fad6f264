// A mask painted over a picture: strokes are kept and drawn anew, so that undo is exact.

import { el } from "./dom.js";

const SIDE = 4096; // px, of the canvas; the server fits a mask of another size
const RED = "#ff2020";

export class Brush {
  constructor(editor) {
    this.editor = editor;
    this.place = editor.querySelector(".canvas");
    this.size = editor.querySelector("[name=brush]");
    this.tool = "brush";
    this.strokes = [];
    this.pointer = null; // that draws
    this.picture = null;
    for (const button of editor.querySelectorAll("[data-tool]")) {
      button.addEventListener("click", () => this.choose(button.dataset.tool));
    }
    editor.querySelector("[data-do=undo]").addEventListener("click", () => this.undo());
    editor.querySelector("[data-do=clear]").addEventListener("click", () => this.set([]));
    this.size.addEventListener("input", () => this.point());
  }

  choose(tool) {
    this.tool = tool;
    for (const button of this.editor.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", button.dataset.tool === tool);
    }
  }

  // Shows a file; false where this browser cannot.
  async open(file) {
    this.picture = this.pointer = null;
    this.file = file;
    this.set([]);
    this.place.replaceChildren();
    if (!file) return true;
    let bitmap;
    try {
      bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    } catch {
      return false;
    }
    if (this.file !== file) return true; // a small one was quicker to open
    this.full = [bitmap.width, bitmap.height];
    const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
    const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
    this.picture = el("canvas", { width, height });
    this.picture.getContext("2d").drawImage(bitmap, 0, 0, width, height);
    this.layer = el("canvas", { width, height, tabIndex: 0, role: "application" });
    this.layer.setAttribute("aria-label", "Mask: arrow keys move the brush, space paints");
    this.cursor = el("i", { hidden: true });
    this.at = [width / 2, height / 2];
    this.listen();
    const wrap = el("div", {}, this.picture, this.layer, this.cursor);
    wrap.style.width = `${Math.max(width, Math.min(4 * width, 640))}px`;
    for (const canvas of [this.picture, this.layer]) canvas.style.width = "100%";
    this.place.append(wrap);
    this.size.max = Math.max(20, Math.round(Math.max(width, height) / 4));
    this.size.value = Math.max(4, Math.round(Math.max(width, height) / 16));
    return true;
  }

  listen() {
    const place = (event) => {
      const box = this.layer.getBoundingClientRect();
      return [((event.clientX - box.left) * this.layer.width) / box.width, ((event.clientY - box.top) * this.layer.height) / box.height];
    };
    this.layer.addEventListener("pointerdown", (event) => {
      if (!event.isPrimary || event.button) return; // a second finger, or another button
      if (this.pointer !== null) return; // a hand that rests beside the pen
      this.layer.setPointerCapture(event.pointerId);
      this.pointer = event.pointerId;
      this.begin(place(event));
    });
    this.layer.addEventListener("pointermove", (event) => {
      const isDrawing = event.pointerId === this.pointer; // not one that began outside
      if (!event.isPrimary || (this.pointer !== null && !isDrawing)) return;
      this.at = place(event);
      this.point();
      if (isDrawing) this.go(this.at);
    });
    this.layer.addEventListener("pointercancel", ({ pointerId }) => {
      if (pointerId === this.pointer) this.set(this.strokes.filter((one) => one !== this.stroke)); // two fingers move the page
    });
    this.layer.addEventListener("lostpointercapture", ({ pointerId }) => {
      if (pointerId === this.pointer) this.pointer = null;
    });
    this.layer.addEventListener("pointerleave", () => (this.cursor.hidden = true));
    this.layer.addEventListener("focus", () => this.point());
    this.layer.addEventListener("blur", () => (this.cursor.hidden = true));
    this.layer.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const step = Math.max(1, this.size.value / 3);
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key in moves) {
      const [dx, dy] = moves[event.key];
      this.at = [
        Math.min(this.layer.width, Math.max(0, this.at[0] + dx)),
        Math.min(this.layer.height, Math.max(0, this.at[1] + dy)),
      ];
      this.point();
      this.cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else if (event.key === " ") {
      this.begin(this.at);
    } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
      this.undo();
    } else {
      return;
    }
    event.preventDefault();
  }

  // The circle that shows where the brush is.
  point() {
    if (!this.cursor) return;
    const scale = this.layer.getBoundingClientRect().width / this.layer.width;
    this.cursor.hidden = false;
    this.cursor.style.left = `${this.at[0] * scale}px`;
    this.cursor.style.top = `${this.at[1] * scale}px`;
    this.cursor.style.width = this.cursor.style.height = `${this.size.value * scale}px`;
  }

  begin(at) {
    this.stroke = { isErased: this.tool === "eraser", width: Number(this.size.value), points: [at] };
    this.strokes.push(this.stroke);
    this.draw(this.stroke);
  }

  go(at) {
    if (!this.strokes.includes(this.stroke)) return; // undone while it is drawn
    this.stroke.points.push(at);
    this.draw({ ...this.stroke, points: this.stroke.points.slice(-2) });
  }

  undo() {
    this.set(this.strokes.slice(0, -1));
  }

  set(strokes) {
    this.strokes = strokes;
    if (!this.picture) return;
    this.layer.getContext("2d").clearRect(0, 0, this.layer.width, this.layer.height);
    for (const stroke of strokes) this.draw(stroke);
  }

  draw({ isErased, width, points, mask }) {
    const pen = this.layer.getContext("2d");
    pen.globalCompositeOperation = isErased ? "destination-out" : "source-over";
    if (mask) return pen.drawImage(mask, 0, 0);
    pen.strokeStyle = pen.fillStyle = RED;
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = width;
    pen.beginPath();
    if (points.length === 1) {
      pen.arc(...points[0], width / 2, 0, 2 * Math.PI); // a line of no length leaves nothing
      return pen.fill();
    }
    pen.moveTo(...points[0]);
    for (const point of points.slice(1)) pen.lineTo(...point);
    pen.stroke();
  }

  // Adds a mask, white on black, to what is painted; false if it has another shape than the picture.
  async add(blob) {
    const bitmap = await createImageBitmap(blob);
    const [width, height] = this.full;
    // a mask that was scaled may be off by a pixel
    if (Math.abs(bitmap.width * height - bitmap.height * width) > Math.max(width, height)) return false;
    const mask = el("canvas", { width: this.layer.width, height: this.layer.height });
    const pen = mask.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.drawImage(bitmap, 0, 0, mask.width, mask.height);
    const data = pen.getImageData(0, 0, mask.width, mask.height);
    for (let i = 0; i < data.data.length; i += 4) {
      const isWhite = Math.max(data.data[i], data.data[i + 1], data.data[i + 2]) * data.data[i + 3] >= 128 * 255;
      data.data.set(isWhite ? [255, 32, 32, 255] : [0, 0, 0, 0], i);
    }
    pen.putImageData(data, 0, 0);
    this.strokes.push({ mask });
    this.draw(this.strokes.at(-1));
    return true;
  }

  get isEmpty() {
    return this.strokes.every(({ isErased }) => isErased);
  }

  // Whether something is painted that was not sent: it is gone with the page.
  get isUnsent() {
    return !this.isEmpty && this.strokes.at(-1) !== this.sent;
  }

  // The mask as a PNG, white where it is painted.
  async png() {
    this.sent = this.strokes.at(-1);
    const { width, height } = this.layer;
    const mask = el("canvas", { width, height });
    const pen = mask.getContext("2d");
    pen.drawImage(this.layer, 0, 0);
    pen.globalCompositeOperation = "source-in";
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
    pen.globalCompositeOperation = "destination-over";
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, width, height);
    return new Promise((done) => mask.toBlob(done, "image/png"));
  }
}
