// Elements and what the page remembers. Text is only ever set as text, so a file's name is never HTML.

export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// A host may have several servers, each below a path of its own.
const place = (key) => `restore${location.pathname.slice(1)}.${key}`;

export function recall(key, fallback) {
  try {
    return JSON.parse(localStorage.getItem(place(key))) ?? fallback;
  } catch {
    return fallback;
  }
}

export function remember(key, value) {
  try {
    localStorage.setItem(place(key), JSON.stringify(value));
  } catch {
    // a private window may refuse: then nothing is remembered
  }
}

export const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

export function megabytes(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

// The settings of a form come back at the next visit.
export function keepSettings(form, key) {
  const kept = recall(`settings.${key}`, {});
  for (const field of form.elements) {
    if (!field.name || field.type === "file" || field.name === "out") continue;
    const usual = field.value;
    if (field.name in kept) field.value = kept[field.name];
    if (field.value !== usual) field.closest("details")?.setAttribute("open", ""); // it counts, so it is seen
    if (field.tagName === "SELECT" && field.selectedIndex < 0) field.selectedIndex = 0;
  }
  form.addEventListener("change", () => {
    const now = {};
    for (const field of form.elements) {
      if (field.name && field.type !== "file") now[field.name] = field.value;
    }
    remember(`settings.${key}`, now);
  });
  for (const range of form.querySelectorAll(".range input")) {
    const output = range.parentElement.querySelector("output");
    const words = { fidelity: ["sharp", "faithful"], strength: ["a little", "all"], severity: ["none", "full"] };
    const tell = () => {
      const [low, high] = words[range.name];
      output.textContent = range.value === range.min ? low : range.value === range.max ? high : range.value;
      range.setAttribute("aria-valuetext", output.textContent);
    };
    range.addEventListener("input", tell);
    tell();
  }
}

// A small picture of a file; nothing where this browser cannot show it.
function thumbnail(file) {
  const image = el("img", { alt: "", src: URL.createObjectURL(file) });
  const free = () => URL.revokeObjectURL(image.src);
  image.addEventListener("load", free);
  image.addEventListener("error", () => {
    free();
    image.remove();
  });
  return image;
}

// A file that misses the place for it would replace this page and what was painted on it.
const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => holdsFiles(event) && event.preventDefault());
}

// What was dropped; of a folder the pictures in it, those of its folders too.
function dropped({ items, files }) {
  const flat = [...files]; // the browser forgets both after the event
  const entries = [...items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return Promise.resolve(flat);
  const found = entries.map((entry) => walk(entry, false));
  return Promise.all(found).then((lists) => lists.flat(), () => flat); // what cannot be read is refused when it is sent
}

async function walk(entry, isInside = true) {
  if (entry.isFile) {
    const file = await new Promise((done, fail) => entry.file(done, fail));
    const isOther = file.name.startsWith(".") || (file.type && !file.type.startsWith("image/"));
    return isInside && isOther ? [] : [file];
  }
  const [reader, inside] = [entry.createReader(), []];
  for (let more = [entry]; more.length; inside.push(...more)) { // a hundred at a time
    more = await new Promise((done, fail) => reader.readEntries(done, fail));
  }
  inside.sort((one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }));
  return (await Promise.all(inside.map((one) => walk(one)))).flat();
}

// A place to choose, drop or paste pictures; calls changed(files).
export function dropZone(zone, changed) {
  const many = "multiple" in zone.dataset;
  let files = [];
  const input = el("input", { type: "file", multiple: many, className: "unseen" });
  input.setAttribute("aria-label", many ? "Choose pictures" : "Choose a picture");
  const pick = el("label", { className: "button" }, many ? "Choose pictures" : "Choose a picture", input);
  const list = el("ul", { className: "chosen" });
  const actions = el("p", { className: "actions" }, pick);
  const set = (given) => {
    files = many ? given : given.slice(-1);
    list.replaceChildren(
      ...files.map((file) => {
        const drop = el("button", { type: "button", textContent: "×" });
        drop.addEventListener("click", () => {
          const place = files.indexOf(file);
          set(files.filter((other) => other !== file));
          (list.querySelectorAll("button")[Math.min(place, files.length - 1)] ?? input).focus();
        });
        drop.setAttribute("aria-label", `Remove ${file.name}`);
        return el("li", {}, thumbnail(file), el("span", { textContent: file.name }), drop);
      }),
    );
    changed(files);
  };
  const take = (more) => set(many ? [...files, ...more] : [...more]);
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = "";
  });
  if (zone.dataset.example) {
    const example = el("button", { type: "button", textContent: "Try an example" });
    example.addEventListener("click", async () => {
      const answer = await fetch(zone.dataset.example);
      set([new File([await answer.blob()], "example.jpg", { type: "image/jpeg" })]);
      if (many) zone.closest("form").querySelector("button.main").focus(); // one press to a first result
    });
    actions.append(example);
  }
  zone.append(actions, el("p", { textContent: `or drop or paste ${many ? "them" : "it"} here` }), list);
  zone.addEventListener("dragover", (event) => holdsFiles(event) && zone.classList.add("over"));
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    zone.classList.remove("over");
    if (holdsFiles(event)) dropped(event.dataTransfer).then(take);
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (pasted.length && !zone.closest("section").hidden) take(pasted);
  });
  return { get: () => files, set };
}
