// LoRAs and a ControlNet beside the model: shown where the server has some and the model takes them.

import { el, recall, remember } from "./dom.js";

const beside = new WeakMap(); // form -> Adapters

// What a form asks for beside its model: fields of the request, and parts of the upload.
export const asked = (form) => beside.get(form)?.fields() ?? {};
export const uploads = (form) => beside.get(form)?.parts() ?? [];
export const lacking = (form) => beside.get(form)?.lacking() ?? "";

export function addAdapters(form, key, known, models) {
  beside.set(form, new Adapters(form, key, known, models));
}

function slider(label, from, to, value, changed) {
  const output = el("output", {}, value);
  const input = el("input", { type: "range", min: from, max: to, step: 0.05, value });
  input.setAttribute("aria-label", label);
  input.addEventListener("input", () => (output.textContent = input.value));
  input.addEventListener("change", changed);
  return { input, box: el("span", { className: "range" }, input, output) };
}

class Adapters {
  constructor(form, key, known, models) {
    Object.assign(this, { form, key: `adapters.${key}`, known, models, rows: [], image: null });
    this.place = form.querySelector(".adapters");
    this.needsImage = "needsImage" in this.place.dataset;
    this.takesImage = !("noImage" in this.place.dataset);
    const kept = recall(this.key, {});
    this.loras = this.loraGroup(kept.loras ?? []);
    this.control = this.controlGroup(kept);
    this.summary = el("summary");
    this.place.append(this.summary, el("div", {}, this.loras, this.control));
    form.addEventListener("change", () => this.refresh());
    this.refresh();
  }

  takes(what) {
    const model = this.models.find(({ name }) => name === this.form.elements.model.value);
    return this.known[`${what}s`].length > 0 && Boolean(model?.takes.includes(what));
  }

  refresh() {
    this.loras.hidden = !this.takes("lora");
    this.control.hidden = !this.takes("controlnet");
    this.guide.hidden = !this.net.value;
    const { lora = [], controlnet } = this.fields();
    const names = lora.map((one) => one.slice(0, one.lastIndexOf("=")));
    const kinds = [this.loras.hidden ? "" : "LoRA", this.control.hidden ? "" : "ControlNet"].filter(Boolean);
    const chosen = [...names, controlnet].filter(Boolean).join(", ");
    this.place.hidden = !kinds.length;
    this.summary.textContent = kinds.join(" and ") + (chosen ? `: ${chosen}` : "");
  }

  keep() {
    this.refresh();
    const loras = this.rows.map(({ select, weight }) => [select.value, weight.value]);
    remember(this.key, { loras, net: this.net.value, strength: this.strength.value });
  }

  loraGroup(kept) {
    this.list = el("ul");
    const more = el("button", { type: "button", textContent: "Add a LoRA" });
    more.addEventListener("click", () => {
      const used = this.rows.map(({ select }) => select.value);
      this.addLora(this.known.loras.find((name) => !used.includes(name)) ?? this.known.loras[0], 1).focus();
      this.keep();
    });
    for (const [name, weight] of kept) if (this.known.loras.includes(name)) this.addLora(name, weight);
    const hint = el("p", { className: "hint", textContent: "A LoRA adds a style or a subject to the model." });
    return el("fieldset", {}, el("legend", { textContent: "LoRA" }), hint, this.list, more);
  }

  addLora(name, value) {
    const select = el("select", { onchange: () => this.keep() }, ...this.known.loras.map((one) => new Option(one)));
    select.value = name;
    select.setAttribute("aria-label", "LoRA");
    const weight = slider("Weight of the LoRA", -1, 2, value, () => this.keep());
    const row = { select, weight: weight.input };
    const drop = el("button", { type: "button", textContent: "×" });
    drop.setAttribute("aria-label", "Remove this LoRA");
    const line = el("li", {}, select, weight.box, drop);
    drop.addEventListener("click", () => {
      this.rows = this.rows.filter((other) => other !== row);
      line.remove();
      this.loras.querySelector(":scope > button").focus();
      this.keep();
    });
    this.rows.push(row);
    this.list.append(line);
    return select;
  }

  controlGroup(kept) {
    this.net = el("select", {}, new Option("none", ""), ...this.known.controlnets.map((name) => new Option(name)));
    this.net.value = this.known.controlnets.includes(kept.net) ? kept.net : "";
    this.net.setAttribute("aria-label", "ControlNet");
    this.net.addEventListener("change", () => this.keep());
    const strength = slider("Strength of the ControlNet", 0, 2, kept.strength ?? 1, () => this.keep());
    this.strength = strength.input;
    this.guide = el("div", {}, strength.box, this.takesImage ? this.imageChoice() : null);
    const hint = el("p", { className: "hint", textContent: "A ControlNet holds the result to the shapes of a picture." });
    return el("fieldset", {}, el("legend", { textContent: "ControlNet" }), hint, this.net, this.guide);
  }

  imageChoice() {
    const input = el("input", { type: "file", accept: "image/*", className: "unseen" });
    const name = el("span", { className: "hint" });
    const tell = () => (name.textContent = this.image?.name ?? (this.needsImage ? "none yet" : "without one it gets your picture"));
    input.addEventListener("change", () => {
      this.image = input.files[0] ?? null;
      tell();
    });
    tell();
    return el("span", { className: "guide" }, el("label", { className: "button", textContent: "Choose its picture" }, input), name);
  }

  fields() {
    const found = {};
    if (!this.loras.hidden && this.rows.length) found.lora = this.rows.map(({ select, weight }) => `${select.value}=${weight.value}`);
    if (!this.control.hidden && this.net.value) {
      Object.assign(found, { controlnet: this.net.value, controlnet_scale: Number(this.strength.value) });
    }
    return found;
  }

  parts() {
    return this.fields().controlnet && this.image ? [["control_image", this.image, this.image.name]] : [];
  }

  lacking() {
    const isShort = this.needsImage && this.fields().controlnet && !this.image;
    return isShort ? "Choose a picture for the ControlNet too." : "";
  }
}
