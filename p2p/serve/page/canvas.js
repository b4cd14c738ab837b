// The drawing: strokes, rectangles, fills, and the way back. It knows nothing of the network.

const STEPS = 40; // that can be undone
const NEAR = 48; // sum of the differences of colour that a fill passes over, such as a JPEG's

/** A canvas to draw on; `changed()` is called after each change. */
export function drawing(canvas, { width, height, background, changed }) {
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  let before = [], after = [], start = null, last = null;
  const whole = () => context.getImageData(0, 0, width, height);

  function begin() {
    before.push(whole());
    before = before.slice(-STEPS);
    after = [];
  }

  function go(from, to) {
    if (!from.length) return;
    to.push(whole());
    context.putImageData(from.pop(), 0, 0);
    changed();
  }

  function line(a, b, { colour, size, pressure = 1 }) {
    context.strokeStyle = colour;
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = size * pressure;
    context.beginPath();
    context.moveTo(a.x, a.y);
    context.lineTo(b.x + (a.x === b.x && a.y === b.y ? .01 : 0), b.y);
    context.stroke();
  }

  function box(a, b, { colour }) {
    context.putImageData(before.at(-1), 0, 0);
    context.fillStyle = colour;
    context.fillRect(Math.round(Math.min(a.x, b.x)), Math.round(Math.min(a.y, b.y)), Math.round(Math.abs(a.x - b.x)), Math.round(Math.abs(a.y - b.y)));
  }

  /** All that is connected with a point and of its colour, row by row. */
  function fill({ x, y }, { colour }) {
    const image = whole(), { data } = image, seen = new Uint8Array(width * height);
    const first = Math.min(height - 1, Math.max(0, Math.floor(y))) * width + Math.min(width - 1, Math.max(0, Math.floor(x)));
    const of = [0, 1, 2].map((channel) => data[4 * first + channel]);
    const to = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    const alike = (at) => !seen[at] && of.reduce((sum, level, channel) => sum + Math.abs(level - data[4 * at + channel]), 0) <= NEAR;
    const waiting = [first];
    while (waiting.length) {
      let at = waiting.pop();
      if (!alike(at)) continue;
      const row = Math.floor(at / width) * width;
      while (at > row && alike(at - 1)) at--;
      for (; at < row + width && alike(at); at++) {
        seen[at] = 1;
        if (at >= width && alike(at - width)) waiting.push(at - width);
        if (at + width < width * height && alike(at + width)) waiting.push(at + width);
      }
    }
    seen.forEach((yes, at) => { if (yes) data.set(to, 4 * at) });
    context.putImageData(image, 0, 0);
  }

  function clear() {
    context.fillStyle = background;
    context.fillRect(0, 0, width, height);
  }

  clear();
  return {
    canvas,
    get undoable() { return before.length > 0 },
    get redoable() { return after.length > 0 },
    undo: () => go(before, after),
    redo: () => go(after, before),
    clear() { begin(); clear(); changed() },
    /** Start with a tool at a point {x, y} in pixels of the canvas; `brush` is {colour, size, pressure}. */
    press(tool, point, brush) {
      begin();
      start = last = point;
      if (tool === "fill") fill(point, brush);
      else if (tool !== "box") line(point, point, brush);
      changed();
    },
    move(tool, point, brush) {
      if (!start || tool === "fill") return;
      if (tool === "box") box(start, point, brush);
      else line(last, point, brush);
      last = point;
      changed();
    },
    release() { start = last = null },
    /** Show an image or a video, of which the middle is taken. */
    show(image, w, h) {
      begin();
      clear();
      const scale = Math.max(width / w, height / h);
      context.imageSmoothingQuality = "high";
      context.drawImage(image, (width - w * scale) / 2, (height - h * scale) / 2, w * scale, h * scale);
      changed();
    },
  };
}
