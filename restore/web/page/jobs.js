// Jobs: sent, watched, cancelled, shown. One timer asks for all that have not ended.

import { counted, el, megabytes, recall, remember } from "./dom.js";
import { SoFar, viewer } from "./viewer.js";

export const KEPT = 200; // as the server
const PATIENCE_MS = 500;
const ANSWER_MS = 20_000; // that a state of a job may take: a network that changed may never answer
const PICTURES = /\.(png|jpe?g|webp|avif)$/i;
const STAGES = { encode: "reading it", walk: "drawing", decode: "developing", enlarge: "enlarging", colour: "colours", pairs: "pairs" };
const LEAVE_MS = 3000; // after it is cancelled: what has arrived by then has an id, and is cancelled by it
const OVERHEAD = 4096; // bytes of a form beside its files
const cards = new Map(); // id -> Card
let timer = null;
const unsent = new Set(); // cards of jobs that only this page has yet
let most = Infinity; // bytes of a request

export function bound(bytes) {
  most = bytes;
}

export class Refused extends Error {}

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Refused("The server does not answer. Is it still running?");
  }
  if (answer.status === 204) return null;
  const told = await answer.json().catch(() => ({}));
  if (answer.ok) return told;
  const text = answer.status === 401 ? "The server has another token now. Open the address that it printed." : told.error;
  const why = answer.status === 413 ? ", as it takes no upload that large" : "";
  const refused = new Refused(text ?? `A proxy before the server answered ${answer.status}${why}.`);
  refused.status = answer.status;
  throw refused;
}

addEventListener("beforeunload", (event) => unsent.size && event.preventDefault()); // the browser asks first

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Does the server answer? If so, what it did not get was not to be read here.
const isThere = () => ask("v1/limits").then(() => true, () => false);

function form(parts) {
  const body = new FormData();
  for (const [name, value, file] of parts) file ? body.append(name, value, file) : body.append(name, value);
  return body;
}

// Shows a job in the section's list, and returns what sends it. `parts` are a form's; or `json` is the body.
export function prepare(section, kind, name, body, onDone = () => {}) {
  const card = new Card(section, kind, name, () => send(section, kind, name, body, onDone), onDone);
  unsent.add(card);
  return () => submit(card, body).finally(() => unsent.delete(card));
}

export const send = (...job) => prepare(...job)();

async function submit(card, { parts, json, path = card.kind }) {
  const { name } = card;
  const bytes = (parts ?? []).reduce((sum, [, value]) => sum + (value.size ?? 0), OVERHEAD);
  if (bytes > most) return card.refuse(`${megabytes(bytes)} are too much; this server takes ${megabytes(most)} at a time.`);
  const options = json
    ? { method: "POST", body: JSON.stringify(json), headers: { "Content-Type": "application/json" } }
    : { method: "POST", body: form(parts) };
  card.leave = new AbortController();
  for (;;) {
    if (card.isUnwanted) return; // cancelled before it was sent
    try {
      card.isOnItsWay = true;
      card.say("sending");
      card.update(await ask(`v1/${path}`, { ...options, signal: card.leave.signal }));
      break;
    } catch (refused) {
      card.isOnItsWay = false;
      if (!(refused instanceof Refused)) throw refused;
      if (card.isUnwanted) return card.refuseUnsent();
      if (!refused.status && (await isThere())) return card.refuse(`${name} could not be sent. If it is a folder, or was moved or changed, choose it again.`);
      if (refused.status !== 429) return card.refuse(refused.message);
      card.say("the server's queue is full; waiting for room");
      await sleep(3000);
    }
  }
  keep(card);
  if (card.isUnwanted) await card.stop();
  watch();
}

// Shows the jobs of earlier visits, as far as the server still has them.
export async function comeBack() {
  for (const { id, kind, name, home } of recall("jobs", [])) {
    const section = document.getElementById(home);
    if (!section) continue;
    const job = await ask(`v1/jobs/${id}`).catch((refused) => refused);
    if (job.status === 404) forget(id); // removed meanwhile
    else if (job instanceof Refused) new Card(section, kind, name).waitFor(id, job.message);
    else new Card(section, kind, name).update(job, true);
  }
  watch();
}

// What is kept is changed by one job at a time: another tab keeps its own there too.
const others = (id) => recall("jobs", []).filter((one) => one.id !== id);

function keep({ id, kind, name, section }) {
  remember("jobs", [...others(id), { id, kind, name, home: section.id }].slice(-KEPT));
}

function forget(id) {
  remember("jobs", others(id));
}

function watch() {
  timer ??= setTimeout(look, PATIENCE_MS);
}

async function look() {
  timer = null;
  const open = [...cards.values()].filter((card) => !card.hasEnded);
  await Promise.all(open.map(renew)); // one after another is slow where each answer comes late
  if (open.some((card) => !card.hasEnded)) watch();
}

async function renew(card) {
  try {
    card.update(await ask(`v1/jobs/${card.id}`, { signal: AbortSignal.timeout(ANSWER_MS) }));
  } catch (refused) {
    if (!(refused instanceof Refused)) throw refused;
    if (refused.status === 404) card.refuse(refused.message);
    else card.say(refused.message);
  }
}

class Card {
  constructor(section, kind, name, again = null, onDone = () => {}) {
    Object.assign(this, { section, kind, name, again, onDone, id: "", hasEnded: false });
    this.state = el("span", { className: "state", textContent: "waits to be sent" });
    this.bar = el("progress", { max: 1 });
    this.bar.setAttribute("aria-label", `Progress of ${name}`);
    this.cancel = el("button", { type: "button", textContent: "Cancel", onclick: () => this.stop() });
    this.buttons = el("span", { className: "actions" });
    this.buttons.style.margin = "0";
    this.buttons.append(this.cancel);
    this.line = el("div", { className: "line" }, el("span", { className: "name", textContent: name, title: name }), this.state, this.buttons);
    this.more = el("div");
    this.soFar = new SoFar(this.more);
    this.box = el("article", { className: "job", "aria-label": name }, this.line, this.bar, this.more);
    section.querySelector(".jobs").prepend(this.box);
  }

  say(text) {
    this.state.textContent = text;
  }

  waitFor(id, text) {
    this.id = id;
    cards.set(id, this);
    this.say(text);
  }

  refuse(text, state = "refused") {
    this.end();
    this.say(state);
    this.more.replaceChildren(el("p", { className: "error", role: "alert", textContent: text }));
    this.offer(this.again && this.button("Try again", () => this.retry()), this.button("Remove", () => this.remove()));
  }

  refuseUnsent() {
    unsent.delete(this);
    this.refuse("It was cancelled before it was sent.", "cancelled");
  }

  // Puts these buttons in the place of the old; who was on one of them stays here.
  offer(...buttons) {
    const isHere = this.buttons.contains(document.activeElement);
    this.buttons.replaceChildren(...buttons.filter(Boolean));
    if (isHere) this.buttons.firstElementChild?.focus();
  }

  end() {
    this.hasEnded = true;
    this.soFar.end();
    this.bar.hidden = true;
  }

  button(text, onclick) {
    return el("button", { type: "button", textContent: text, onclick });
  }

  retry() {
    this.again();
    this.section.querySelector(".jobs button").focus(); // Cancel of the new one
    this.remove();
  }

  async stop() {
    this.isUnwanted = true; // while it is sent it has no id: then submit() asks again
    this.cancel.disabled = true;
    if (!this.id && !this.isOnItsWay) return this.refuseUnsent();
    if (!this.id) {
      this.say("is cancelled");
      return setTimeout(() => this.leave.abort(), LEAVE_MS);
    }
    try {
      await ask(`v1/jobs/${this.id}/cancel`, { method: "POST" });
    } catch (refused) {
      this.say(refused.message);
      this.cancel.disabled = false;
    }
    watch();
  }

  async remove() {
    const next = this.box.nextElementSibling ?? this.box.previousElementSibling ?? this.section.querySelector("form");
    if (this.box.contains(document.activeElement)) next.querySelector(".line .actions > *, button.main")?.focus();
    this.box.remove();
    if (!this.id) return;
    cards.delete(this.id);
    forget(this.id);
    await ask(`v1/jobs/${this.id}`, { method: "DELETE" }).catch(() => {});
  }

  update(job, isOld = false) {
    this.id = job.id;
    cards.set(job.id, this);
    this.box.dataset.status = job.status;
    if (job.status === "queued") {
      this.say(job.position ? `waits; ${counted(job.position, "job")} before it` : "waits");
    } else if (job.status === "running") {
      this.say(this.doing(job));
      const share = job.tally ? job.tally.done / job.tally.total : job.part && job.part.done / job.part.of;
      if (share) this.bar.value = share;
      this.soFar.look(job);
    } else if (!this.hasEnded) {
      this.end();
      this.show(job, isOld);
      if (!isOld) document.getElementById("said").textContent = `${this.name}: ${this.state.textContent}`;
    }
  }

  doing({ part, tally }) {
    if (tally) {
      const left = tally.left_s ? `; about ${Math.ceil(tally.left_s)} s left` : "";
      return `${tally.done} of ${counted(tally.total, "file")}, ${tally.failed} failed${left}`;
    }
    return part ? `${STAGES[part.what] ?? part.what}, ${part.done} of ${part.of}` : "at work";
  }

  show(job, isOld) {
    const seconds = job.seconds === null ? "" : `${job.seconds.toFixed(1)} s`;
    const sizes = [job.size_in, job.size_out].filter(Boolean).map(([height, width]) => `${width} × ${height}`);
    this.say([{ done: "done", failed: "failed", cancelled: "cancelled" }[job.status], sizes.join(" → "), seconds].filter(Boolean).join(", "));
    const isHere = this.buttons.contains(document.activeElement);
    this.buttons.replaceChildren();
    if (job.status !== "done" && this.again) this.buttons.append(this.button("Try again", () => this.retry()));
    this.more.replaceChildren();
    if (job.error) this.more.append(el("p", { className: "error", role: isOld ? "note" : "alert", textContent: job.error }));
    const notes = new Set([...job.warnings, ...(job.tally?.failures ?? [])]); // of several pictures, each once
    if (notes.size) this.more.append(el("ul", {}, ...[...notes].map((text) => el("li", { textContent: text }))));
    if (job.status === "done") this.results(job, isOld);
    this.buttons.append(this.button("Remove", () => this.remove()));
    if (isHere) this.buttons.firstElementChild.focus();
  }

  results(job, isOld) {
    const at = (name) => `v1/jobs/${job.id}/result?name=${encodeURIComponent(name)}`;
    if (job.kind === "batch") {
      this.buttons.append(el("a", { className: "button", href: `v1/jobs/${job.id}/report`, target: "_blank", textContent: "Report" }));
      return;
    }
    const files = job.results;
    const isGallery = files.length > 3 || (job.kind === "inpaint" && files.length > 1);
    for (const file of isGallery ? [] : files) {
      const isPage = file.name.endsWith(".html");
      const text = isPage ? "How well it fits" : `Download ${files.length > 1 ? file.name : ""} ${megabytes(file.bytes)}`;
      const link = el("a", { className: "button download", href: at(file.name), textContent: text });
      isPage ? (link.target = "_blank") : (link.download = file.name);
      this.buttons.append(link);
    }
    this.pictures(job, at, isOld);
    this.onDone(job, at);
  }

  pictures(job, at, isOld) {
    const shown = job.results.filter((file) => PICTURES.test(file.name));
    const view = (name) => `v1/jobs/${job.id}/view/${name}`;
    const isPair = job.views.includes("before") && job.views.includes("after");
    if (job.kind === "sheet") {
      this.more.append(el("img", { className: "sheet", src: at("sheet.png"), alt: "The photo, then what the recipe makes of it" }));
    } else if (isPair) {
      const see = () => {
        const frame = viewer(view("before"), view("after"), job.size_out);
        this.more.append(frame.box);
        const candidates = job.kind === "inpaint" ? shown.slice(1) : [];
        if (candidates.length) this.more.append(this.gallery(candidates, at, frame.show));
        else if (shown.length > 1) this.more.append(this.gallery(shown, at));
      };
      isOld ? this.later(see) : see();
    } else if (shown.length > 1) {
      this.more.append(this.gallery(shown, at));
    } else if (job.views.includes("after")) {
      this.more.append(el("img", { className: "result", src: view("after"), alt: "The result" }));
    }
  }

  // Pictures beside each other, each to download; `show` puts one into the viewer.
  gallery(files, at, show = null) {
    const cell = (file) => {
      const picture = el("img", { src: at(file.name), alt: file.name, loading: "lazy" });
      const link = el("a", { href: at(file.name), download: file.name, textContent: `${file.name}, ${megabytes(file.bytes)}` });
      const look = show ? el("button", { type: "button", title: "Compare this one", onclick: () => show(at(file.name)) }, picture) : picture;
      return el("div", {}, look, link);
    };
    return el("div", { className: "gallery" }, ...files.map(cell));
  }

  later(see) {
    const look = this.button("Look at it", () => {
      look.remove();
      see();
    });
    this.buttons.append(look);
  }
}
