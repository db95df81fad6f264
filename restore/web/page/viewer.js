// Before and after in one frame: what lies left of the edge is before. The range below it is the
// same by keyboard. Returns its element, and what shows another picture for after.

import { el } from "./dom.js";

export function viewer(before, after, size) {
  const [height, width] = size;
  const under = el("img", { src: before, alt: "Before", draggable: false });
  const over = el("img", { src: after, alt: "After", draggable: false });
  const edge = el("span", { className: "edge" });
  const frame = el("div", { className: "frame" }, under, over, edge, el("b", { textContent: "before" }), el("b", { textContent: "after" }));
  frame.style.aspectRatio = `${width} / ${height}`;
  const stage = el("div", { className: "stage" }, frame);
  stage.tabIndex = 0;
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
