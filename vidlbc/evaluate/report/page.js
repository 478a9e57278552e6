"use strict";
// The page works from a file: all data is in it, nothing is fetched.
const data = JSON.parse(document.getElementById("data").textContent);
const colour = i => `var(--c${i % 10})`;
const round = (v, digits) => v.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
const short = v => v >= 1e6 ? `${+(v / 1e6).toPrecision(3)}M` : v >= 1e3 ? `${+(v / 1e3).toPrecision(3)}k` : `${+v.toPrecision(3)}`;

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

const tip = document.body.appendChild(document.createElement("div"));
tip.id = "tip";

function tell(event, text) {
  tip.textContent = text;
  tip.style.display = "block";
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 12, innerWidth - width - 8))}px`;
  const below = event.clientY + 14;
  tip.style.top = `${below + height < innerHeight ? below : event.clientY - height - 10}px`;
}

const hush = () => { tip.style.display = "none"; };

function hover(element, text) {
  ["pointerenter", "pointermove", "pointerdown"].forEach(name => element.addEventListener(name, e => tell(e, text)));
  element.addEventListener("pointerleave", hush);
}

function node(name, attributes, parent, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.appendChild(made);
  return made;
}

function element(name, parent, text) {
  const made = parent.appendChild(document.createElement(name));
  if (text !== undefined) made.textContent = text;
  return made;
}

// `draw` again whenever the place gets another width: text keeps its size, on a phone too.
function keepDrawn(place, draw) {
  let width = 0;
  const fit = () => {
    const now = Math.round(place.getBoundingClientRect().width);
    if (now && now !== width) { width = now; draw(width); }
  };
  fit();
  new ResizeObserver(fit).observe(place);
  return () => draw(width || 320);
}

function ticks(low, high, log, count = 5) {
  const found = [];
  if (log) {
    const steps = high / low > 300 ? [1] : high / low > 2.5 ? [1, 2, 5] : [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
      for (const m of steps) { const v = m * 10 ** e; if (v >= low && v <= high) found.push(v); }
    return found;
  }
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find(m => m * power >= raw) * power;
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9 * step; v += step) found.push(Math.abs(v) < step / 1e6 ? 0 : v);
  return found;
}

// An svg with axes and grid. `spec`: x, y: [low, high]; log (of x), whole (x has no parts), xname, yname, xtext, ytext.
function plane(place, width, spec) {
  const W = width, H = Math.round(Math.max(220, Math.min(340, 0.62 * width))), left = 52, right = 16, top = 10, bottom = 42;
  const [lx, hx] = spec.x, [ly, hy] = spec.y;
  const at = spec.log ? v => Math.log(v / lx) / Math.log(hx / lx) : v => (v - lx) / (hx - lx);
  const px = v => left + at(v) * (W - left - right), py = v => H - bottom - ((v - ly) / (hy - ly)) * (H - top - bottom);
  place.querySelectorAll("svg").forEach(old => old.remove());
  const svg = node("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${spec.yname} over ${spec.xname}` });
  place.prepend(svg);
  const xtext = spec.xtext || (v => short(v)), ytext = spec.ytext || (v => short(v));
  let free = -Infinity;
  for (const v of ticks(lx, hx, spec.log, W < 460 ? 4 : 8)) {
    if (spec.whole && v % 1) continue;
    node("line", { class: "grid", x1: px(v), x2: px(v), y1: top, y2: H - bottom }, svg);
    const text = xtext(v), half = 3.4 * text.length + 4;
    if (px(v) - half < free || px(v) + half > W) continue;  // labels neither touch nor are cut
    free = px(v) + half;
    node("text", { x: px(v), y: H - bottom + 16, "text-anchor": "middle" }, svg, text);
  }
  for (const v of ticks(ly, hy, false)) {
    node("line", { class: "grid", x1: left, x2: W - right, y1: py(v), y2: py(v) }, svg);
    node("text", { x: left - 6, y: py(v) + 4, "text-anchor": "end" }, svg, ytext(v));
  }
  node("text", { x: (left + W - right) / 2, y: H - 6, "text-anchor": "middle" }, svg, spec.xname);
  node("text", { x: -(top + H - bottom) / 2, y: 13, "text-anchor": "middle", transform: "rotate(-90)" }, svg, spec.yname);
  return { svg, px, py, left, right: W - right, top, bottom: H - bottom };
}

// Boxes to show and hide; `redraw` reads the set of hidden names that this returns.
function legend(place, names, redraw, boxes = true) {
  const hidden = new Set();
  names.forEach((name, i) => {
    const label = element(boxes ? "label" : "span", place);
    if (boxes) {
      const box = element("input", label);
      box.type = "checkbox"; box.checked = true;
      box.addEventListener("change", () => { box.checked ? hidden.delete(name) : hidden.add(name); redraw(); });
    }
    element("i", label).style.background = colour(i);
    label.appendChild(document.createTextNode(name));
  });
  return hidden;
}
