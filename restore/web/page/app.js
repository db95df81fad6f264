// The tabs: what each form asks for.

import { addAdapters, asked as adapters, lacking, uploads } from "./adapters.js";
import { Brush } from "./brush.js";
import { counted, dropZone, el, keepSettings, recall, remember } from "./dom.js";
import { ask, bound, comeBack, KEPT, prepare, Refused, send, sleep } from "./jobs.js";

const FORMATS = { auto: "as the input's", png: "PNG", jpeg: "JPEG", webp: "WebP", avif: "AVIF", tiff: "TIFF" };
const section = (id) => document.getElementById(id);

function showTab(id) {
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const isChosen = tab.getAttribute("aria-controls") === id;
    tab.setAttribute("aria-selected", isChosen);
    tab.tabIndex = isChosen ? 0 : -1;
    if (isChosen) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    section(tab.getAttribute("aria-controls")).hidden = !isChosen;
  }
  remember("tab", id);
}

function tabs() {
  const all = [...document.querySelectorAll("[role=tab]")];
  const ids = all.map((tab) => tab.getAttribute("aria-controls"));
  for (const [number, tab] of all.entries()) {
    tab.addEventListener("click", () => showTab(ids[number]));
    tab.addEventListener("keydown", (event) => {
      const next = { ArrowRight: number + 1, ArrowLeft: number - 1 + all.length, Home: 0, End: all.length - 1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      showTab(ids[next % all.length]);
      all[next % all.length].focus();
    });
  }
  const asked = location.hash.slice(1);
  const last = ids.includes(asked) ? asked : recall("tab", "upscale");
  showTab(ids.includes(last) ? last : "upscale");
}

function complain(form, text) {
  form.querySelector(".complaint")?.remove();
  if (text) form.append(el("p", { className: "error complaint", role: "alert", textContent: text }));
}

// The fields that were filled in, as numbers where they are.
function values(form, ...names) {
  const found = {};
  for (const name of names) {
    const field = form.elements[name];
    if (field.value === "") continue;
    found[name] = ["number", "range"].includes(field.type) || name === "scale" ? Number(field.value) : field.value;
  }
  return found;
}

function upscaleOptions(form) {
  const options = values(form, "scale");
  if (Number(form.elements.fidelity.value) > 0) options.fidelity = Number(form.elements.fidelity.value);
  return options;
}

const common = (form) => ({ ...values(form, "model", "seed"), ...adapters(form) });
const request = (image, asked, ...more) => ({
  parts: [["image", image, image.name], ["request", JSON.stringify(asked)], ...more],
});

// A form over pictures: each becomes a job of its own.
function eachPicture(id, asked) {
  const form = section(id).querySelector("form");
  const zone = dropZone(form.querySelector(".drop"), () => complain(form, ""));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const files = zone.get();
    if (!files.length) return complain(form, "Choose a picture first, or try the example.");
    if (files.length > KEPT) {
      const mend = "send fewer at a time, or work on a folder of the server";
      return complain(form, `${files.length} pictures are too many, as the server keeps the newest ${KEPT} results: ${mend}.`);
    }
    complain(form, "");
    const [now, guide] = [asked(form), uploads(form)]; // as the form is now, not when the queue has room
    const jobs = files.map((file) => prepare(section(id), id, file.name, request(file, now, ...guide)));
    for (const job of jobs) await job();
  });
  keepSettings(form, id);
}

function inpaint() {
  const form = section("inpaint").querySelector("form");
  const editor = form.querySelector(".editor");
  const brush = new Brush(editor);
  let uploaded = null; // a mask for a picture that cannot be shown
  const zone = dropZone(form.querySelector(".drop"), async ([file]) => {
    uploaded = null;
    editor.hidden = !file;
    const isShown = await brush.open(file);
    if (zone.get()[0] !== file) return; // another was chosen meanwhile
    complain(form, isShown ? "" : `This browser cannot show ${file.name}. Load a mask for it, or find its scratches.`);
  });
  addEventListener("beforeunload", (event) => brush.isUnsent && event.preventDefault());
  form.elements.maskfile.addEventListener("change", async () => {
    const [file] = form.elements.maskfile.files;
    if (!file) return;
    try {
      const isFit = !brush.picture || (await brush.add(file));
      if (!brush.picture) uploaded = file;
      complain(form, isFit ? "" : `${file.name}: the mask has another shape than the picture.`);
    } catch {
      complain(form, `${file.name}: this browser cannot show it; take a PNG.`);
    }
    form.elements.maskfile.value = "";
  });
  editor.querySelector("[data-do=scratches]").addEventListener("click", async () => {
    const [file] = zone.get();
    await send(section("inpaint"), "scratches", `scratches of ${file.name}`, request(file, {}), async (job, at) => {
      const mask = await (await fetch(at("damage.png"))).blob();
      if (zone.get()[0] !== file) return; // they are no scratches of the picture that is here now
      if (brush.picture) await brush.add(mask);
      else uploaded = mask;
    });
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const [file] = zone.get();
    if (!file) return complain(form, "Choose a picture first, or try the example.");
    if (brush.isEmpty && !uploaded) return complain(form, "Paint over what is to be filled, or load a mask.");
    complain(form, lacking(form));
    if (lacking(form)) return;
    const mask = brush.isEmpty ? uploaded : await brush.png();
    const options = values(form, "prompt", "engine", "grow", "feather", "steps");
    const asked = { ...common(form), ...values(form, "count"), inpaint: options, pictures: values(form, "format"), fit_mask: true };
    await send(section("inpaint"), "inpaint", file.name, request(file, asked, ["mask", mask, "mask.png"], ...uploads(form)));
  });
  keepSettings(form, "inpaint");
}

function text2img() {
  const form = section("text2img").querySelector("form");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const options = values(form, "prompt", "negative", "width", "height", "steps", "guidance");
    complain(form, lacking(form));
    if (lacking(form)) return;
    const json = { ...common(form), ...values(form, "count"), text2img: options };
    const guide = uploads(form);
    const parts = [["request", JSON.stringify(json)], ...guide];
    const body = guide.length ? { parts, path: "text2img/form" } : { json };
    await send(section("text2img"), "text2img", options.prompt ?? "without words", body);
  });
  keepSettings(form, "text2img");
  const hint = form.querySelector("[data-for]");
  const tell = () => (hint.hidden = form.elements.model.value !== hint.dataset.for);
  form.addEventListener("change", tell);
  tell();
}

function degrade(recipes) {
  const form = section("degrade").querySelector("form");
  form.elements.recipe.append(...recipes.map(({ name }) => new Option(name)));
  const zone = dropZone(form.querySelector(".drop"), () => complain(form, ""));
  const line = section("recipe-line");
  const tell = () => (line.textContent = recipes.find(({ name }) => name === form.elements.recipe.value)?.line ?? "");
  keepSettings(form, "degrade");
  tell();
  const run = async (kind) => {
    const files = zone.get();
    if (!files.length) return complain(form, "Choose photos first, or try the example.");
    complain(form, "");
    const asked = kind === "estimate" ? {} : values(form, "recipe", "scale", "severity", "crop", "seed", { sheet: "columns", pairs: "pairs" }[kind]);
    const parts = [...files.map((file) => ["image", file, file.name]), ["request", JSON.stringify(asked)]];
    const name = kind === "estimate" ? `recipe of ${counted(files.length, "photo")}` : asked.recipe;
    await send(section("degrade"), kind, name, { parts });
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run(event.submitter?.value || "sheet");
  });
  form.addEventListener("change", (event) => {
    tell();
    const isSeen = section("degrade").querySelector(".sheet");
    if (isSeen && zone.get().length && !["pairs", undefined].includes(event.target.name)) run("sheet"); // live
  });
}

function batch(roots) {
  const form = section("batch").querySelector("form");
  section("no-roots").hidden = roots.length > 0;
  section("with-roots").hidden = roots.length === 0;
  if (!roots.length) return;
  const browser = form.querySelector(".browser");
  let here = { root: roots[0], folder: "" };
  const go = async (root, folder) => {
    let told;
    try {
      told = await ask(`v1/folders?root=${encodeURIComponent(root)}&folder=${encodeURIComponent(folder)}`);
    } catch (refused) {
      return complain(form, refused.message);
    }
    complain(form, "");
    here = { root, folder };
    const button = (text, next, name = root) => el("li", {}, el("button", { type: "button", textContent: text, onclick: () => go(name, next) }));
    const up = folder.split("/").slice(0, -1).join("/");
    const others = folder ? [] : roots.filter((name) => name !== root);
    const isMoved = browser.contains(document.activeElement);
    browser.replaceChildren(
      el("p", {}, el("b", { textContent: [root, folder].filter(Boolean).join("/") }), `: ${counted(told.pictures, "picture")}${told.has_more ? " or more" : ""} here`),
      el("ul", {}, ...(folder ? [button("↑ up", up)] : []), ...others.map((name) => button(`${name}/`, "", name)),
        ...told.folders.map((name) => button(name, folder ? `${folder}/${name}` : name))),
    );
    if (isMoved) browser.querySelector("button")?.focus();
  };
  go(roots[0], "");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const find = form.elements.scratches.value;
    const json = {
      ...common(form), ...here, ...values(form, "out"), upscale: upscaleOptions(form),
      pictures: values(form, "format", "quality", "strip"), find_scratches: find,
    };
    await send(section("batch"), "batch", [here.root, here.folder].filter(Boolean).join("/"), { json });
  });
  keepSettings(form, "batch");
}

// What the server has, once it answers: it may be starting, or start again.
async function offers(status) {
  for (;;) {
    try {
      return await Promise.all(["models", "recipes", "folders", "limits", "adapters"].map((name) => ask(`v1/${name}`)));
    } catch (refused) {
      if (!(refused instanceof Refused)) throw refused;
      if (status.textContent !== refused.message) status.textContent = refused.message;
      await sleep(3000);
    }
  }
}

async function begin() {
  tabs();
  // A browser cannot point at a wrong field in what is closed: it would do nothing, and say nothing.
  const open = ({ target }) => target.closest("details")?.setAttribute("open", "");
  document.addEventListener("invalid", open, true);
  const status = section("server");
  const [models, recipes, folders, limits, known] = await offers(status);
  bound(limits.body);
  for (const select of document.querySelectorAll("select[data-task]")) {
    const able = models.filter(({ tasks }) => tasks.includes(select.dataset.task));
    select.append(...able.map(({ name, about }) => new Option(about ? `${name} (${about})` : name, name)));
  }
  for (const select of document.querySelectorAll(".formats")) {
    const auto = select.dataset.auto ?? FORMATS.auto;
    select.append(...Object.entries(FORMATS).map(([value, text]) => new Option(value === "auto" ? auto : text, value)));
  }
  eachPicture("upscale", (form) => ({
    ...common(form),
    upscale: { ...upscaleOptions(form), ...values(form, "colour", "steps", "prompt") },
    pictures: values(form, "format", "quality", "strip"),
    find_scratches: form.elements.scratches.value,
  }));
  inpaint();
  text2img();
  eachPicture("img2img", (form) => ({
    ...common(form),
    img2img: values(form, "prompt", "strength", "steps", "guidance"),
    pictures: values(form, "format"),
  }));
  degrade(recipes);
  batch(folders.roots);
  for (const id of ["upscale", "inpaint", "text2img", "img2img", "batch"]) {
    addAdapters(section(id).querySelector("form"), id, known, models);
  }
  status.textContent = "everything stays on this server";
  document.querySelector("main").inert = false;
  document.body.dataset.ready = "";
  await comeBack();
}

begin();
