// Before and after in one frame: what lies left of the edge is before. The range below it is the
// same by keyboard. Returns its element, and what shows another picture for after.

import { el } from "./dom.js";

const RENEW_MS = 3000; // the server makes previews only while it is asked for them

// The unfinished result of a job at work, in `place`; asked for only while it can be seen.
export class SoFar {
  constructor(place) {
    Object.assign(this, { place, image: null, shown: 0, asked: 0, isBusy: false, isOver: false });
  }

  async look({ id, preview }) {
    const isDue = preview !== this.shown || Date.now() - this.asked > RENEW_MS;
    if (this.isBusy || !isDue || document.hidden || !this.place.offsetParent) return;
    this.isBusy = true;
    this.asked = Date.now();
    try {
      const answer = await fetch(`v1/jobs/${id}/preview`);
      if (answer.status === 200) this.show(URL.createObjectURL(await answer.blob()));
      this.shown = preview;
    } catch {
      // the next look at the job tells that the server is gone
    }
    this.isBusy = false;
  }

  show(address) {
    if (this.isOver) return URL.revokeObjectURL(address);
    if (this.image) URL.revokeObjectURL(this.image.src);
    else {
      this.image = el("img", { alt: "The picture so far" });
      this.image.addEventListener("load", ({ target }) => {
        target.style.width = `min(100%, ${(60 * target.naturalWidth) / target.naturalHeight}vh)`;
      });
      this.place.replaceChildren(el("figure", { className: "sofar" }, this.image, el("b", { textContent: "so far" })));
    }
    this.image.src = address;
  }

  end() {
    this.isOver = true;
    if (this.image) URL.revokeObjectURL(this.image.src);
  }
}

export function viewer(before, after, size) {
  const [height, width] = size;
  const under = el("img", { src: before, alt: "Before", draggable: false });
  const over = el("img", { src: after, alt: "After", draggable: false });
  const edge = el("span", { className: "edge" });
  const frame = el("div", { className: "frame" }, under, over, edge, el("b", { textContent: "before" }), el("b", { textContent: "after" }));
  frame.style.aspectRatio = `${width} / ${height}`;
  const stage = el("div", { className: "stage" }, frame);
  stage.tabIndex = 0; // its scroll bars, by keyboard
  stage.setAttribute("role", "group");
  stage.setAttribute("aria-label", "Before and after, side by side");
  const range = el("input", { type: "range", min: 0, max: 100, step: 0.5, value: 50 });
  range.setAttribute("aria-label", "Edge between before and after");
  const put = () => {
    over.style.clipPath = `inset(0 0 0 ${range.value}%)`;
    edge.style.left = `${range.value}%`;
  };
  range.addEventListener("input", put);
  const drag = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = frame.getBoundingClientRect();
    range.value = (100 * (event.clientX - box.left)) / box.width;
    put();
  };
  frame.addEventListener("pointerdown", drag);
  frame.addEventListener("pointermove", drag);

  const zooms = { Fit: 0, "100 %": 1, "200 %": 2 };
  const buttons = Object.entries(zooms).map(([text, zoom]) => {
    const button = el("button", { type: "button", textContent: text });
    button.addEventListener("click", () => {
      for (const other of buttons) other.setAttribute("aria-pressed", other === button);
      const pixels = width / (window.devicePixelRatio || 1);
      frame.classList.toggle("whole", !zoom);
      frame.style.width = zoom ? `${pixels * zoom}px` : "100%";
      frame.style.maxWidth = zoom ? "none" : `${Math.max(pixels, 640)}px`;
    });
    return button;
  });
  buttons[0].click();
  put();
  const box = el("div", { className: "viewer" }, stage, el("div", { className: "bar" }, range, ...buttons));
  return { box, show: (source) => (over.src = source) };
}
