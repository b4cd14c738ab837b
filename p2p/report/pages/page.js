"use strict";
// What the pages share. The data stands in the page as JSON.
const data = JSON.parse(document.getElementById("data").textContent);

/** An element with properties, or attributes where it has no such property, and children. */
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties))
    name in element ? (element[name] = value) : element.setAttribute(name, value);
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

/** One of several pictures that stand beside each other in an image: {src, of: how many, at: which}. */
function view({ src, of = 1, at = 0 }, size, label) {
  const image = h("img", { src, alt: label, draggable: false, style: `width:${100 * of}%;left:${-100 * at}%` });
  return h("div", { className: "view", style: `aspect-ratio:${size.width}/${size.height}` }, image);
}

/** Two views on top of each other, and a slider between them. */
function compare(before, after) {
  const slider = h("input", { type: "range", min: 0, max: 100, value: 50, step: "any", "aria-label": "left and right of the line" });
  const box = h("div", { className: "compare" }, before, h("div", { className: "over" }, after), slider);
  slider.oninput = () => box.style.setProperty("--at", `${slider.value}%`);
  return box;
}

/** Four digits of a share such as SSIM, two of what is larger, such as decibels. */
const score = (number) => number == null ? "" : number.toFixed(Math.abs(number) < 1 ? 4 : 2);

/** A table; the cells of `rows` are text, nodes or numbers. */
function table(header, rows) {
  const cell = (tag) => (content) => h(tag, { className: typeof content === "number" ? "number" : "" }, typeof content === "number" ? score(content) : content);
  return h("table", {}, header && h("thead", {}, h("tr", {}, header.map(cell("th")))), h("tbody", {}, rows.map((row) => h("tr", {}, row.map(cell("td"))))));
}

/** Title, a sentence, links to the other pages of the folder, and the settings of the run. */
function header(...sentences) {
  const links = Object.entries(data.pages).map(([name, href]) => h("a", { href }, name));
  const settings = Object.entries(data.settings);
  document.querySelector("header").replaceChildren(
    h("h1", {}, data.title), ...sentences.map((sentence) => h("p", {}, sentence)), h("nav", {}, links),
    settings.length ? h("details", {}, h("summary", {}, "Settings"), table(null, settings)) : "");
}

const typing = (event) => event.target.matches("input:not([type=range]), select, textarea");
