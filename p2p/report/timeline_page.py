"""A timeline as a page that needs no other file and no network: zoom, move, and point at a bar."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING

from p2p.profiling.clock import COLOURS
from p2p.report.timeline_picture import colour, ink

if TYPE_CHECKING:
    from p2p.report.timeline import Timeline

MOST = 20_000  # bars of a page, about 1 MB: those nearest to the window; timeline.json has them all


def page(timeline: Timeline) -> str:
    """The page's text. Times are in microseconds from the first bar on, as in timeline.json."""
    middle = sum(timeline.window_ns) / 2
    bars = [(index, bar) for index, bars in enumerate(timeline.lanes.values()) for bar in bars]
    nearest = sorted(bars, key=lambda item: abs(item[1].begin_ns + item[1].end_ns - 2 * middle))[:MOST]
    stages = [stage for stage in COLOURS if any(bar.stage == stage for _, bar in nearest)]
    data = {
        "lanes": list(timeline.lanes),
        "stages": [{"name": stage, "colour": colour(stage), "ink": ink(stage)} for stage in stages],
        "bars": [
            [lane, stages.index(bar.stage), *_micro(timeline, bar.begin_ns, bar.end_ns), bar.images, bar.batch]
            for lane, bar in sorted(nearest, key=lambda item: (item[0], item[1].begin_ns))
        ],
        "window": _micro(timeline, *timeline.window_ns),
        "all": _micro(timeline, timeline.begin_ns, timeline.end_ns),
    }
    note = f"{len(nearest):,} of {len(bars):,} bars; timeline.json has all" if len(nearest) < len(bars) else ""
    script = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return PAGE.replace("@NOTE@", html.escape(note)).replace("@DATA@", script)


def _micro(timeline: Timeline, *times_ns: int) -> list[float]:
    return [round((time - timeline.begin_ns) / 1e3, 1) for time in times_ns]


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>p2p: timeline</title>
<style>
  :root { color-scheme: light dark }
  body { font: 14px/1.4 system-ui, sans-serif; margin: 1rem }
  h1 { font-size: 1.2rem; margin: 0 0 .5rem }
  p { margin: .5rem 0; opacity: .7 }
  #legend span { display: inline-block; margin-right: 1.2rem; white-space: nowrap }
  #legend i { display: inline-block; width: .9em; height: .9em; margin-right: .4em; vertical-align: -.1em }
  button { font: inherit; margin-right: .3rem }
  canvas { display: block; width: 100%; margin-top: .7rem; cursor: grab; touch-action: none }
  #tip { position: fixed; display: none; pointer-events: none; padding: .3rem .6rem; border-radius: .3rem;
         background: #222; color: #fff; white-space: pre; font-variant-numeric: tabular-nums }
</style>
<h1>Who worked when</h1>
<div id="legend"></div>
<p>Turn the wheel to zoom, drag to move, point at a bar for its stage, batch and time. @NOTE@</p>
<div><button id="middle">the middle</button><button id="all">the whole run</button>
<button id="in">+</button><button id="out">-</button></div>
<canvas id="view" role="img" aria-label="a lane of bars for each worker and stream"></canvas>
<div id="tip"></div>
<script id="data" type="application/json">@DATA@</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const canvas = document.getElementById("view"), tip = document.getElementById("tip"), pen = canvas.getContext("2d");
const LANE = 26, GAP = 5, TOP = 24, FONT = "12px system-ui, sans-serif";
const height = TOP + data.lanes.length * (LANE + GAP);
let [begin, end] = data.window, width = 0, left = 0;

for (const stage of data.stages) {
  const item = document.getElementById("legend").appendChild(document.createElement("span"));
  item.appendChild(document.createElement("i")).style.background = stage.colour;
  item.append(stage.name);
}

const x = time => left + (time - begin) / (end - begin) * (width - left);
const timeAt = pixel => begin + (pixel - left) / (width - left) * (end - begin);
const ms = micro => (micro / 1000).toLocaleString("en", { maximumFractionDigits: 3 }) + " ms";

function draw() {
  const ratio = window.devicePixelRatio || 1, style = getComputedStyle(document.body);
  width = canvas.clientWidth;
  canvas.style.height = height + "px";
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.font = FONT;
  left = 16 + Math.max(...data.lanes.map(lane => pen.measureText(lane).width));
  pen.textBaseline = "middle";
  const rough = (end - begin) / Math.max(2, (width - left) / 110), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(value => value >= rough);
  pen.textAlign = "center";
  for (let tick = Math.ceil(begin / step) * step; tick <= end; tick += step) {
    pen.fillStyle = style.color;
    pen.globalAlpha = .15;
    pen.fillRect(x(tick), TOP - 4, 1, height);
    pen.globalAlpha = .7;
    pen.fillText(ms(Math.round(tick * 1000) / 1000), x(tick), 10);
  }
  data.lanes.forEach((lane, index) => {
    const top = TOP + index * (LANE + GAP);
    pen.fillStyle = style.color;
    pen.globalAlpha = .06;
    pen.fillRect(left, top, width - left, LANE);
    pen.globalAlpha = 1;
    pen.textAlign = "right";
    pen.fillText(lane, left - 8, top + LANE / 2);
  });
  pen.save();
  pen.beginPath();
  pen.rect(left, 0, width - left, height);
  pen.clip();
  pen.textAlign = "center";
  for (const [lane, stage, from, to, , batch] of data.bars) {
    if (to < begin || from > end) continue;
    const top = TOP + lane * (LANE + GAP), first = Math.max(x(from), left - 2), last = Math.min(x(to), width + 2);
    pen.fillStyle = data.stages[stage].colour;
    pen.fillRect(first, top, Math.max(1, last - first - (last - first > 4)), LANE);
    if (batch === null || last - first < 12) continue;
    const text = [data.stages[stage].name + " " + batch, String(batch)]
      .find(text => pen.measureText(text).width + 6 < last - first);
    pen.fillStyle = data.stages[stage].ink;
    if (text) pen.fillText(text, (first + last) / 2, top + LANE / 2 + 1);
  }
  pen.restore();
}

function look(from, to) {
  const [first, last] = data.all, length = Math.min(Math.max(to - from, 5), last - first);
  begin = Math.min(Math.max(from, first), last - length);
  end = begin + length;
  draw();
}

function zoom(factor, around) {
  look(around - (around - begin) * factor, around + (end - around) * factor);
}

function point(event) {
  const box = canvas.getBoundingClientRect(), time = timeAt(event.clientX - box.left);
  const row = event.clientY - box.top - TOP, lane = Math.floor(row / (LANE + GAP)), slack = (end - begin) / width;
  const bar = data.bars.find(bar => bar[0] === lane && bar[2] - slack <= time && time <= bar[3] + slack);
  tip.style.display = bar && event.clientX - box.left > left ? "block" : "none";
  if (!bar) return;
  const [, stage, from, to, images, batch] = bar, about = batch === null ? "" : "batch " + batch + ", ";
  tip.textContent = data.stages[stage].name + ", " + data.lanes[lane] + "\\n" + about
    + (images === 1 ? "1 image" : images + " images") + "\\n" + ms(to - from) + ", from " + ms(from);
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = event.clientY + 16 + "px";
}

canvas.addEventListener("wheel", event => {
  event.preventDefault();
  zoom(1.2 ** Math.sign(event.deltaY), timeAt(event.offsetX));
}, { passive: false });
canvas.addEventListener("pointerdown", event => canvas.setPointerCapture(event.pointerId));
canvas.addEventListener("pointermove", event => {
  if (event.buttons) {
    const by = event.movementX / (width - left) * (end - begin);
    look(begin - by, end - by);
  }
  point(event);
});
canvas.addEventListener("pointerleave", () => tip.style.display = "none");
canvas.addEventListener("dblclick", () => look(...data.window));
document.getElementById("middle").onclick = () => look(...data.window);
document.getElementById("all").onclick = () => look(...data.all);
document.getElementById("in").onclick = () => zoom(.5, (begin + end) / 2);
document.getElementById("out").onclick = () => zoom(2, (begin + end) / 2);
addEventListener("resize", draw);
draw();
</script>
</html>
"""
