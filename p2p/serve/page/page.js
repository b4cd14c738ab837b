// The page: tools, and a translation that follows the drawing. One request at a time; the latest drawing is next.
import { drawing } from "./canvas.js";

const $ = (id) => document.getElementById(id);
const model = await (await fetch("model")).json();
const colours = Object.entries(model.palette);
let tool = "pen", colour = (colours[1] ?? colours[0])[1], size = 10;

/** An element with properties and children. */
function h(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// The model

document.title = `p2p ${model.name}`;
$("name").textContent = model.name;
$("facts").textContent = `${model.width}×${model.height} pixels, ${model.backend} ${model.precision} on ${model.device}`;
document.documentElement.style.setProperty("--shape", model.width / model.height);

// The translation

const output = $("translation").getContext("2d");
Object.assign($("translation"), { width: model.width, height: model.height });
let request = null, waiting = false, file = null;

const blob = (canvas) => new Promise((done) => canvas.toBlob(done, "image/png"));
const say = (sentence) => { $("error").textContent = sentence ?? ""; $("error").hidden = !sentence };

/** Translate the drawing as it is now, or as it will be when the request under way is done. */
async function translate() {
  if (request) { waiting = true; return }
  const mine = request = new AbortController();
  waiting = false;
  $("result").classList.add("busy");
  try {
    const body = await blob(sheet.canvas), start = performance.now();
    const response = await fetch("translate", { method: "POST", body, signal: mine.signal });
    if (response.status === 429) { // the server is full: the latest drawing once more, in a moment
      waiting = true;
      say("The server is busy. Trying again …");
      await new Promise((done) => setTimeout(done, 1000 * (response.headers.get("Retry-After") ?? 1)));
    } else if (!response.ok) {
      throw new Error((await response.json()).error);
    } else {
      const found = await response.blob(), image = await createImageBitmap(found);
      if (mine.signal.aborted) return;
      Object.assign($("translation"), { width: image.width, height: image.height });
      output.drawImage(image, 0, 0);
      file = found;
      const network = /network;dur=([\d.]+)/.exec(response.headers.get("Server-Timing"));
      $("time").textContent = `${Math.round(performance.now() - start)} ms` + (network ? `, network ${Math.round(network[1])} ms` : "");
      $("save").disabled = false;
      say();
    }
  } catch (error) {
    if (error.name !== "AbortError") say(error instanceof TypeError ? "The server does not answer. Is it still running?" : error.message);
  } finally {
    if (request === mine) {
      request = null;
      $("result").classList.toggle("busy", waiting);
      if (waiting) translate();
    }
  }
}

/** What is under way is of another picture: its answer is not wanted any more. */
function abandon() {
  request?.abort();
  request = null;
}

// The drawing

const sheet = drawing($("drawing"), {
  width: model.width,
  height: model.height,
  background: colours[0][1],
  changed() {
    $("undo").disabled = !sheet.undoable;
    $("redo").disabled = !sheet.redoable;
    translate();
  },
});
const brush = (event) => ({
  colour: tool === "eraser" ? colours[0][1] : colour,
  size,
  pressure: event?.pointerType === "pen" && event.pressure ? .3 + 1.4 * event.pressure : 1,
});

function place(event) {
  const box = sheet.canvas.getBoundingClientRect();
  return { x: (event.clientX - box.left) * model.width / box.width, y: (event.clientY - box.top) * model.height / box.height };
}

sheet.canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.isPrimary) return;
  sheet.canvas.setPointerCapture(event.pointerId);
  $("cursor").hidden = true;
  sheet.press(tool, place(event), brush(event));
});
sheet.canvas.addEventListener("pointermove", (event) => {
  if (!sheet.canvas.hasPointerCapture(event.pointerId)) return;
  const events = event.getCoalescedEvents?.() ?? [];
  for (const each of events.length ? events : [event]) sheet.move(tool, place(each), brush(each));
});
for (const name of ["pointerup", "pointercancel"]) sheet.canvas.addEventListener(name, () => sheet.release());

// The keyboard on the drawing: arrows move a cursor, space draws

const at = { x: model.width / 2, y: model.height / 2 };
let pressed = false;

function showCursor() {
  const cursor = $("cursor"), scale = 100 / model.width;
  cursor.hidden = false;
  cursor.style.setProperty("left", `${at.x * scale}%`);
  cursor.style.setProperty("top", `${at.y * 100 / model.height}%`);
  cursor.style.setProperty("width", `${Math.max(size, 4) * scale}%`);
  cursor.style.setProperty("aspect-ratio", "1");
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
sheet.canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " ") {
    event.preventDefault();
    if (!pressed) sheet.press(tool, { ...at }, brush());
    pressed = true;
  } else if (event.key in ARROWS) {
    event.preventDefault();
    const [x, y] = ARROWS[event.key], step = event.shiftKey ? 1 : Math.max(4, size / 2);
    at.x = Math.min(model.width, Math.max(0, at.x + x * step));
    at.y = Math.min(model.height, Math.max(0, at.y + y * step));
    if (pressed) sheet.move(tool, { ...at }, brush());
  } else return;
  showCursor();
});
sheet.canvas.addEventListener("keyup", (event) => { if (event.key === " " && pressed) { pressed = false; sheet.release() } });
sheet.canvas.addEventListener("blur", () => { $("cursor").hidden = true; if (pressed) { pressed = false; sheet.release() } });
sheet.canvas.addEventListener("focus", () => { if (sheet.canvas.matches(":focus-visible")) showCursor() });

// Tools and colours

function choose(name) {
  tool = name;
  for (const button of $("tools").children) button.setAttribute("aria-pressed", button.dataset.tool === name);
}
for (const button of $("tools").children) button.onclick = () => choose(button.dataset.tool);

function setSize(pixels) {
  size = Math.min(64, Math.max(1, pixels));
  $("size").value = $("pixels").value = size;
  if (!$("cursor").hidden) showCursor();
}
$("size").oninput = () => setSize(Number($("size").value));

function pick(value) {
  colour = value;
  if (tool === "eraser") choose("pen");
}
for (const [name, value] of colours) {
  const named = name !== value, swatch = h("i");
  swatch.style.setProperty("--colour", value);
  const radio = h("input", { type: "radio", name: "colour", value, ariaLabel: named ? name : `colour ${value}`, checked: value === colour, onchange: () => pick(value) });
  $("palette").append(h("label", { className: named ? "named" : "", title: name }, radio, swatch, named ? name : ""));
}
const own = h("input", { type: "color", value: colour, ariaLabel: "another colour" }), swatch = h("i");
own.oninput = () => {
  swatch.style.setProperty("--colour", own.value);
  for (const radio of document.querySelectorAll("#palette [type=radio]")) radio.checked = false;
  pick(own.value);
};
swatch.style.setProperty("--colour", "conic-gradient(red, yellow, lime, aqua, blue, magenta, red)");
$("palette").append(h("label", { className: "own", title: "Another colour" }, own, swatch, "Other"));

$("undo").onclick = sheet.undo;
$("redo").onclick = sheet.redo;
$("clear").onclick = () => { abandon(); sheet.clear() };

// Images from elsewhere

async function open(source) {
  if (!model.draws) return;
  try {
    const image = await createImageBitmap(source);
    abandon();
    sheet.show(image, image.width, image.height);
  } catch { say("This browser cannot read that file as an image.") }
}
$("open").onclick = () => $("file").click();
$("file").onchange = () => { if ($("file").files[0]) open($("file").files[0]); $("file").value = "" };
addEventListener("paste", (event) => { const [image] = event.clipboardData.files; if (image) open(image) });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => { event.preventDefault(); const [image] = event.dataTransfer.files; if (image) open(image) });

$("camera").onclick = async () => {
  try {
    $("video").srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    $("photo").showModal();
    await $("video").play();
  } catch (error) {
    say(navigator.mediaDevices ? `There is no camera to use: ${error.message}.` : "Browsers give a camera only to https and to localhost.");
  }
};
$("shoot").onclick = () => {
  abandon();
  sheet.show($("video"), $("video").videoWidth, $("video").videoHeight);
  $("photo").close();
};
$("cancel").onclick = () => $("photo").close();
$("photo").onclose = () => { for (const track of $("video").srcObject?.getTracks() ?? []) track.stop(); $("video").srcObject = null };

$("save").onclick = () => {
  const link = h("a", { href: URL.createObjectURL(file), download: "translation.png" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
$("save").disabled = $("undo").disabled = $("redo").disabled = true;

const load = async (number) => open(await (await fetch(`samples/${number}.png`)).blob());
for (let number = 0; number < model.samples; number++) {
  const image = h("img", { src: `samples/${number}.png`, alt: `sample ${number + 1}` });
  $("samples").append(h("button", { title: "Draw on this one", onclick: () => load(number) }, image));
}
$("start").hidden = !model.samples;

// The keyboard everywhere

$("help").onclick = () => $("keys").showModal();
const KEYS = {
  b: () => choose("pen"), r: () => choose("box"), f: () => choose("fill"), e: () => choose("eraser"),
  "[": () => setSize(size - 2), "]": () => setSize(size + 2), Delete: () => $("clear").click(),
  o: () => $("open").click(), c: () => $("camera").click(), s: () => $("save").click(), "?": () => $("help").click(),
};
addEventListener("keydown", (event) => {
  if (!model.draws || document.querySelector("dialog[open]") || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    if (key === "y" || event.shiftKey) sheet.redo();
    else sheet.undo();
  } else if (/^\d$/.test(key)) {
    document.querySelectorAll("#palette [type=radio]")[(Number(key) + 9) % 10]?.click();
  } else KEYS[key]?.();
});

if (!model.draws) {
  for (const part of document.querySelectorAll(".tools, .palette, .pair, #help")) part.hidden = true;
  const takes = model.labels ? "label maps" : `arrays of ${model.channels[0]} channels`;
  say(`This model takes ${takes} and gives ${model.channels[1]} channels: there is nothing to draw on. Send files to POST /translate.`);
} else if (model.samples) await load(0);
else translate();
