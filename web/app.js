// The page: a photograph in, the worker's answer out.
import { blend, lookedAt } from "./pixels.js";
import { STRINGS } from "./strings.js";

const at = (id) => document.getElementById(id);
const TILE = 1024; // where the whole picture needs too much memory
const LOOK = 640; // the shorter side at which networks find the streaks they were trained on, for larger photographs

let models = [], example;
let photo; // { name, width, height, rgba, derained }
let worker, busy = false, job = 0; // the number of the latest job: older ones are forgotten
let words = STRINGS.en, said = () => "";

// --- words ---

function speak(language) {
  words = STRINGS[language];
  document.documentElement.lang = language;
  document.title = words.title;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = words[element.dataset.t];
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", words[element.dataset.label]);
  for (const id of ["before", "after"]) at(id).setAttribute("aria-label", words[id]);
  const other = language === "en" ? "zh" : "en";
  Object.assign(at("language"), { textContent: { en: "English", zh: "中文" }[other], lang: other, onclick: () => speak(other) });
  at("status").textContent = said();
}

function say(text) {
  said = text;
  at("status").textContent = text();
}

function complain(text = "") {
  at("error").textContent = text;
  at("error").hidden = !text;
  if (text) say(() => "");
  if (text) at("progress").hidden = true;
}

// --- the picture ---

async function open(blob, name) {
  const mine = ++job;
  if (busy) stop();
  busy = false;
  complain();
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob); // upright, as EXIF says, and in sRGB
  } catch {
    return mine === job && complain(words.unreadable(name));
  }
  if (mine !== job) return;
  const { width, height } = bitmap, canvas = at("before");
  let rgba;
  try {
    Object.assign(canvas, { width, height });
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.fillStyle = "white";
    pen.fillRect(0, 0, width, height); // transparency is laid over white
    pen.drawImage(bitmap, 0, 0);
    rgba = pen.getImageData(0, 0, width, height).data;
    if (rgba[3] === 0) throw new RangeError("the canvas stayed empty"); // it does where it is too large
    Object.assign(at("after"), { width, height });
  } catch {
    return complain(words["too-large"](name));
  } finally {
    bitmap.close();
  }
  photo = { name, width, height, rgba };
  const short = Math.min(width, height);
  at("scale").value = short > 1024 ? Math.max(5, Math.round((20 * LOOK) / short) * 5) : 100;
  at("stage").classList.remove("empty");
  update();
  derain();
}

function show() {
  if (!photo?.derained) return;
  const image = new ImageData(photo.width, photo.height);
  blend(photo.rgba, photo.derained, at("strength").value / 100, image.data);
  at("after").getContext("2d", { willReadFrequently: true }).putImageData(image, 0, 0);
}

function update() {
  at("strength-value").textContent = `${at("strength").value} %`;
  at("scale-value").textContent = `${at("scale").value} %`;
  at("stage").style.setProperty("--split", `${at("split").value}%`);
  at("about").textContent = models[at("model").value]?.about ?? "";
}

function enable(done) {
  at("stage").classList.toggle("done", done);
  for (const id of ["split", "strength", "save"]) at(id).disabled = !done;
  at("scale").disabled = false;
}

// --- the work ---

function stop() {
  worker?.terminate(); // frees its memory too, which WebAssembly else never gives back
  worker = undefined;
  at("progress").hidden = true;
}

/** Return the tiles to try: the whole picture where a quarter of the memory is enough, then smaller and smaller ones. */
function plans(model, pixels) {
  const memory = (navigator.deviceMemory ?? 4) * 2 ** 30;
  const fits = (count) => count * model.bytes_per_pixel < memory / 4;
  const step = model.multiple;
  const sides = [TILE, TILE / 4].map((side) => Math.ceil(side / step) * step);
  const tiled = sides.map((side) => ({ side, margin: Math.ceil(side / 4 / step) * step }));
  return (fits(pixels) ? [{ side: 0, margin: 0 }] : []).concat(tiled);
}

/** Send the worker a job; return its last message. What it says on the way is shown. */
function ask(message, current) {
  if (!worker) worker = new Worker("worker.js", { type: "module" });
  return new Promise((resolve) => {
    let ticking;
    const end = (answer) => {
      clearInterval(ticking);
      resolve(answer);
    };
    worker.onerror = (event) => end({ failed: "load", why: event.message ?? "worker" });
    worker.onmessage = ({ data }) => {
      if (!current()) return end({});
      if (data.progress === undefined) return end(data);
      const { progress, of, seconds } = data, bar = at("progress"), began = performance.now();
      say(() => (of > 1 ? words.tiles(progress, of) : words.running(Math.max(1, Math.ceil(seconds)))));
      clearInterval(ticking); // the network says nothing while it works: the bar follows the estimate
      ticking = setInterval(() => {
        bar.value = (progress + Math.min(0.97, (performance.now() - began) / 1000 / seconds)) / of;
      }, 100);
      bar.hidden = false;
    };
    worker.postMessage(message);
  });
}

async function derain() {
  const mine = ++job, current = () => mine === job;
  const model = models[at("model").value], scale = at("scale").value / 100, from = photo;
  const [width, height] = lookedAt(from.width, from.height, scale), began = performance.now();
  if (busy) stop();
  busy = true;
  from.derained = undefined;
  enable(false);
  complain();
  say(() => words.loading);
  let answer;
  for (const tile of plans(model, width * height)) {
    const { rgba, width, height } = from;
    answer = await ask({ rgba, width, height, file: model.file, scale, tile }, current);
    if (!current()) return;
    answer.tiled = tile.side > 0;
    if (answer.failed !== "run") break;
    stop(); // it failed for want of memory: smaller tiles, in a new worker
  }
  busy = false;
  at("progress").hidden = true;
  if (answer.failed) {
    stop();
    return complain(answer.failed === "run" ? words.memory : words.broken(answer.why));
  }
  from.derained = answer.result;
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  say(() => words.done(from.width, from.height, seconds) + (answer.tiled ? ` ${words["done-tiles"]}` : ""));
  enable(true);
  show();
}

function save() {
  at("after").toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${photo.name.replace(/\.[^.]*$/, "")}-derained.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }, "image/png");
}

// --- the controls ---

at("file").onchange = ({ target }) => {
  if (target.files[0]) open(target.files[0], target.files[0].name);
  target.value = ""; // the same file may be chosen again
};
at("example").onclick = async () => {
  try {
    const answer = await fetch(example.file);
    if (!answer.ok) throw new Error(`${example.file}: ${answer.status}`);
    open(await answer.blob(), example.file);
  } catch (error) {
    complain(words.broken(error.message));
  }
};
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (file) open(file, file.name);
});
at("split").oninput = update;
let drawing;
at("strength").oninput = () => {
  update();
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(show);
};
at("scale").oninput = update;
at("scale").onchange = derain;
at("model").onchange = () => {
  update();
  if (photo) derain();
};
at("save").onclick = save;
at("controls").onsubmit = (event) => event.preventDefault();

speak(navigator.language.startsWith("zh") ? "zh" : "en");
if (!globalThis.DecompressionStream) {
  complain(words.old);
} else {
  ({ models, example } = await (await fetch("contents.json")).json());
  at("model").replaceChildren(...models.map(({ name }, i) => new Option(name, i)));
  at("credit").textContent = example.credit;
  update();
  navigator.serviceWorker?.register("sw.js").catch(() => {}); // without it the page works, but only when connected
}
