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

/** Four digits of a share such as SSIM, two of what is larger, such as decibels, and of what is tiny, such as a learning rate. */
function score(number) {
  if (number == null) return "";
  const size = Math.abs(number);
  return size > 0 && size < .001 ? String(+number.toPrecision(2)) : number.toFixed(size < 1 ? 4 : 2);
}

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

/** A node of SVG; `plot` draws with it. */
function s(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Points [{x, y, label, best}] as a curve, or as dots; x is a number, or a word of which each has its place. */
function plot(title, points, { dots = false, under = "" } = {}) {
  const [left, right, top, bottom] = [52, 392, 8, 132];
  const words = points.some(({ x }) => typeof x !== "number") ? [...new Set(points.map(({ x }) => String(x)))] : null;
  const place = ({ x }) => words ? words.indexOf(String(x)) : x;
  const range = (values) => {
    const [low, high] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
    const around = Math.abs(low) / 2 || .5; // of a constant
    return low === high ? [low - around, high + around] : [low, high];
  };
  const [[x0, x1], [y0, y1]] = [range(points.map(place)), range(points.map(({ y }) => y))];
  const X = (point) => left + (right - left) * (place(point) - x0) / (x1 - x0);
  const Y = ({ y }) => bottom - (bottom - top) * (y - y0) / (y1 - y0);
  const drawing = s("svg", { viewBox: "0 0 400 150", role: "img", "aria-label": title },
    s("path", { class: "axis", d: `M${left} ${top}V${bottom}H${right}` }));
  for (const y of [y0, y1]) drawing.append(s("text", { x: left - 6, y: Y({ y }) + 4, "text-anchor": "end" }, +y.toPrecision(3)));
  const ticks = words && words.length <= 6 ? words.map((x) => ({ x })) : [points[0], points.at(-1)].map(({ x }) => ({ x })).sort((a, b) => place(a) - place(b));
  for (const tick of ticks) drawing.append(s("text", { x: X(tick), y: bottom + 15, "text-anchor": "middle" }, tick.x));
  if (dots)
    for (const point of points)
      drawing.append(s("circle", { class: point.best ? "dot best" : "dot", cx: X(point), cy: Y(point), r: 4 }, s("title", {}, point.label)));
  else if (points.length === 1) drawing.append(s("circle", { class: "dot", cx: X(points[0]), cy: Y(points[0]), r: 4 }));
  else drawing.append(s("polyline", { class: "curve", points: points.map((point) => `${X(point)},${Y(point)}`).join(" ") }));
  return h("div", {}, h("h2", {}, title, " ", h("span", { className: "faint" }, under)), drawing);
}

/** Parallel coordinates: `lines` [{values, label}], the best first, through an axis for each of `names`. */
function parallel(names, lines) {
  const [gap, top, bottom] = [150, 38, 210];
  const axes = names.map((name, at) => {
    const values = lines.map((line) => line.values[at]);
    const words = values.some((value) => typeof value !== "number") ? [...new Set(values.map(String))] : null;
    const [low, high] = words ? [0, words.length - 1] : [Math.min(...values), Math.max(...values)];
    const logs = !words && low > 0 && high / low > 30;  // as a learning rate is searched
    const share = logs ? (value) => Math.log(value / low) / Math.log(high / low) : (value) => ((words ? words.indexOf(String(value)) : value) - low) / (high - low || 1);
    return { name: logs ? `${name} (log)` : name, x: 70 + gap * at, y: (value) => bottom - (bottom - top) * (low === high ? .5 : share(value)),
      ticks: words ? words.slice(0, 12) : low === high ? [low] : [low, high] };
  });
  const width = 140 + gap * (names.length - 1);
  const drawing = s("svg", { viewBox: `0 0 ${width} 235`, width, role: "img", "aria-label": "all jobs in parallel coordinates", class: "parallel" });
  lines.forEach((line, index) => {
    const points = axes.map((axis, at) => `${axis.x},${axis.y(line.values[at])}`).join(" ");
    const rank = index / (lines.length - 1);
    drawing.prepend(s("polyline", { class: index ? "line" : "line best", points, opacity: index ? (.65 * (1 - rank) + .15).toFixed(2) : 1 }, s("title", {}, line.label)));
  });
  for (const axis of axes) {
    drawing.append(s("path", { class: "axis", d: `M${axis.x} ${top}V${bottom}` }), s("text", { x: axis.x, y: 12, "text-anchor": "middle" }, axis.name));
    for (const tick of axis.ticks)
      drawing.append(s("text", { class: "tick", x: axis.x - 5, y: axis.y(tick) + (tick === axis.ticks[0] ? 12 : -3), "text-anchor": "end" }, typeof tick === "number" ? +tick.toPrecision(3) : tick));
  }
  return h("div", {}, h("h2", {}, "All settings ", h("span", { className: "faint" }, "a line for each job; red: the best, the paler the worse")), drawing);
}
