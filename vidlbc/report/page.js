"use strict";
// The page works from a file: all data is in it, nothing is fetched.
const data = JSON.parse(document.getElementById("data").textContent);
const colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#777777", "#b8a300", "#7f3c8d"];
const colourOf = {};
(data.curves || []).forEach((curve, i) => { colourOf[curve.name] = colours[i % colours.length]; });
const hidden = new Set();

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

const tip = document.body.appendChild(document.createElement("div"));
tip.id = "tip";

function node(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (parent) parent.appendChild(made);
  return made;
}

function ticks(low, high, log) {
  if (log) {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
      for (const m of [1, 2, 5]) { const v = m * 10 ** e; if (v >= low && v <= high) found.push(v); }
    return found;
  }
  const raw = (high - low) / 5, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find(m => m * power >= raw) * power;
  const found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) found.push(v);
  return found;
}

function chart(place, spec) {
  const W = 520, H = 340, left = 52, right = 12, top = 10, bottom = 40;
  const shown = data.curves.filter(c => !hidden.has(c.name));
  const all = (shown.length ? shown : data.curves).flatMap(c => c.points);
  const xs = all.map(p => p[spec.x]), ys = all.map(p => p[spec.y]);
  const lx = Math.min(...xs) * 0.85, hx = Math.max(...xs) * 1.15;
  const pad = (Math.max(...ys) - Math.min(...ys)) * 0.05 || 1, ly = Math.min(...ys) - pad, hy = Math.max(...ys) + pad;
  const px = v => left + (Math.log(v / lx) / Math.log(hx / lx)) * (W - left - right);
  const py = v => H - bottom - ((v - ly) / (hy - ly)) * (H - top - bottom);
  place.textContent = "";
  const svg = node("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${spec.yname} over ${spec.xname}` }, place);
  for (const v of ticks(lx, hx, true)) {
    node("line", { class: "grid", x1: px(v), x2: px(v), y1: top, y2: H - bottom }, svg);
    node("text", { x: px(v), y: H - bottom + 16, "text-anchor": "middle" }, svg).textContent = +v.toPrecision(3);
  }
  for (const v of ticks(ly, hy, false)) {
    node("line", { class: "grid", x1: left, x2: W - right, y1: py(v), y2: py(v) }, svg);
    node("text", { x: left - 6, y: py(v) + 4, "text-anchor": "end" }, svg).textContent = +v.toPrecision(5);
  }
  node("text", { x: (left + W - right) / 2, y: H - 4, "text-anchor": "middle" }, svg).textContent = spec.xname;
  node("text", { x: -(top + H - bottom) / 2, y: 12, "text-anchor": "middle", transform: "rotate(-90)" }, svg).textContent = spec.yname;
  for (const curve of shown) {
    const points = [...curve.points].sort((a, b) => a[spec.x] - b[spec.x]);
    const path = points.map((p, i) => `${i ? "L" : "M"}${px(p[spec.x])},${py(p[spec.y])}`).join("");
    node("path", { d: path, fill: "none", stroke: colourOf[curve.name], "stroke-width": 2 }, svg);
    for (const p of points) {
      const dot = node("circle", { cx: px(p[spec.x]), cy: py(p[spec.y]), r: 4, fill: colourOf[curve.name] }, svg);
      const text = `${curve.name}, ${p.label}: ${p[spec.x].toPrecision(4)} ${spec.xunit}, ${p[spec.y].toFixed(spec.digits)} ${spec.yunit}`;
      node("title", {}, dot).textContent = text;
      const show = e => { tip.textContent = text; tip.style.display = "block"; tip.style.left = `${Math.min(e.clientX + 12, innerWidth - 240)}px`; tip.style.top = `${e.clientY + 12}px`; };
      dot.addEventListener("pointerenter", show);
      dot.addEventListener("pointerleave", () => { tip.style.display = "none"; });
    }
  }
}

const places = [...document.querySelectorAll("[data-chart]")];
const draw = () => places.forEach(place => chart(place, data.charts[+place.dataset.chart]));
const legend = document.getElementById("legend");
if (legend) {
  for (const curve of data.curves) {
    const label = legend.appendChild(document.createElement("label"));
    const box = label.appendChild(document.createElement("input"));
    box.type = "checkbox"; box.checked = true;
    const line = label.appendChild(document.createElement("i"));
    line.style.background = colourOf[curve.name];
    label.appendChild(document.createTextNode(curve.name));
    box.addEventListener("change", () => { box.checked ? hidden.delete(curve.name) : hidden.add(curve.name); draw(); });
  }
  draw();
}

// One video holds all panels below one another, so that they can never run apart.
document.querySelectorAll(".player").forEach(box => {
  const spec = data.players[+box.dataset.player], video = box.querySelector("video"), canvas = box.querySelector("canvas");
  const bar = box.nextElementSibling, [a, b] = bar.querySelectorAll("select"), play = bar.querySelector("button"), seek = bar.querySelector("input");
  const note = bar.nextElementSibling, context = canvas.getContext("2d");
  box.style.maxWidth = `${Math.min(3 * spec.width, 1068)}px`;
  canvas.width = spec.width; canvas.height = spec.height;
  spec.panels.forEach((panel, i) => [a, b].forEach(s => s.add(new Option(panel.name, i))));
  b.value = Math.min(1, spec.panels.length - 1);
  let split = 0.5;
  const paint = () => {
    const w = spec.width, h = spec.height, x = Math.round(split * w);
    if (video.readyState >= 2) {
      context.drawImage(video, 0, a.value * h, w, h, 0, 0, w, h);
      if (x < w) context.drawImage(video, x, b.value * h, w - x, h, x, 0, w - x, h);
    }
    context.fillStyle = "#fff"; context.fillRect(x - 1, 0, 2, h);
    if (video.duration) seek.value = video.currentTime / video.duration;
    note.textContent = [a, b].map((s, i) => `${i ? "right" : "left"}: ${spec.panels[s.value].caption}`).join("   |   ");
  };
  const loop = () => { paint(); if (!video.paused) requestAnimationFrame(loop); };
  const move = e => { const r = canvas.getBoundingClientRect(); split = Math.max(0, Math.min(1, (e.clientX - r.left) / r.width)); paint(); };
  canvas.addEventListener("pointerdown", e => { canvas.setPointerCapture(e.pointerId); move(e); });
  canvas.addEventListener("pointermove", e => { if (e.buttons || e.pointerType === "mouse") move(e); });
  play.addEventListener("click", () => { if (video.paused) { video.play(); requestAnimationFrame(loop); play.textContent = "pause"; } else { video.pause(); play.textContent = "play"; } });
  seek.addEventListener("input", () => { video.currentTime = seek.value * video.duration; });
  ["seeked", "loadeddata"].forEach(name => video.addEventListener(name, paint));
  [a, b].forEach(s => s.addEventListener("change", paint));
  paint();
});
document.body.dataset.ready = "yes";
