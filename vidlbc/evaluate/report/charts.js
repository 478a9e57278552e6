// Curves, accuracy, lines and bars over time, confusion, accuracy of classes: svg, drawn at the width there is.

function range(values, share) {
  const low = Math.min(...values), high = Math.max(...values), pad = (high - low) * share || Math.abs(high) * share || 1;
  return [low - pad, high + pad];
}

// ---- rate and distortion
function rateChart(place, width, spec, hidden) {
  const shown = data.curves.filter(c => !hidden.has(c.name)), all = (shown.length ? shown : data.curves).flatMap(c => c.points);
  const xs = all.map(p => p[spec.x]), ys = all.map(p => p[spec.y]);
  const frame = { ...spec, x: [Math.min(...xs) * 0.85, Math.max(...xs) * 1.15], y: range(ys, 0.05), log: true, ytext: v => +v.toPrecision(5) };
  const { svg, px, py } = plane(place, width, frame);
  data.curves.forEach((curve, i) => {
    if (hidden.has(curve.name)) return;
    const points = [...curve.points].sort((a, b) => a[spec.x] - b[spec.x]);
    const path = points.map((p, k) => `${k ? "L" : "M"}${px(p[spec.x])},${py(p[spec.y])}`).join("");
    node("path", { d: path, class: "line", style: `stroke:${colour(i)}` }, svg);
    for (const p of points) {
      const dot = node("circle", { cx: px(p[spec.x]), cy: py(p[spec.y]), r: 4, style: `fill:${colour(i)}` }, svg);
      hover(dot, `${curve.name}, ${p.label}: ${p[spec.x].toPrecision(4)} ${spec.xunit}, ${p[spec.y].toFixed(spec.digits)} ${spec.yunit}`);
    }
  });
}

const curveLegend = document.getElementById("legend");
if (curveLegend) {
  let redraw = [];
  const hidden = legend(curveLegend, data.curves.map(c => c.name), () => redraw.forEach(draw => draw()));
  redraw = [...document.querySelectorAll("[data-chart]")].map(place =>
    keepDrawn(place, width => rateChart(place, width, data.charts[+place.dataset.chart], hidden)));
}

// ---- accuracy against bits
const percent = v => `${(100 * v).toFixed(1)}%`;
const bytesText = v => v >= 1e6 ? `${+(v / 1e6).toPrecision(3)} MB` : v >= 1e3 ? `${+(v / 1e3).toPrecision(3)} kB` : `${+v.toPrecision(3)} B`;

function tellAccuracy(name, p) {
  const quality = p.qp === null ? "" : `, qp ${p.qp}`, rate = p.bpp === null ? "" : `, ${p.bpp.toPrecision(3)} bit/pixel`;
  return `${name}${quality}: top-1 ${percent(p.top1)} [${percent(p.ci95[0])}, ${percent(p.ci95[1])}], ${bytesText(p.bytes)} a clip${rate}, ${p.clips} clips`;
}

function accuracyChart(place, width, spec, hidden) {
  const lines = spec.lines.filter(line => !hidden.has(line.name)), all = lines.flatMap(line => line.points);
  const coded = spec.lines.filter(line => !line.reference).flatMap(line => line.points);
  const bytes = (coded.length ? coded : spec.lines.flatMap(line => line.points)).map(p => p.bytes);
  const ys = (all.length ? all : spec.lines.flatMap(line => line.points)).flatMap(p => p.ci95);
  if (spec.chance !== null) ys.push(spec.chance);
  const low = Math.min(...bytes), high = Math.max(...bytes), room = high / low < 1.5 ? 2 : 1.25;
  const [ly, hy] = range(ys, 0.06);
  const { svg, px, py, left, right } = plane(place, width, {
    x: [low / room, high * room], y: [Math.max(0, ly), Math.min(1, hy)], log: true, xname: "bytes a clip (mean)", yname: "top-1",
    xtext: bytesText, ytext: v => `${+(100 * v).toPrecision(4)}%`,
  });
  if (spec.chance !== null) {
    node("line", { class: "chance", x1: left, x2: right, y1: py(spec.chance), y2: py(spec.chance) }, svg);
    node("text", { class: "soft", x: right - 4, y: py(spec.chance) - 4, "text-anchor": "end" }, svg, "chance");
  }
  spec.lines.forEach((line, i) => { if (line.reference && !hidden.has(line.name)) reference(line, i); });
  const taken = [];  // [line, x]: whiskers at the same bytes stand beside one another
  spec.lines.forEach((line, i) => { if (!line.reference && !hidden.has(line.name)) measured(line, i); });

  function reference(line, i) {
    for (const p of line.points) {
      const y = py(p.top1), tall = Math.max(1, py(p.ci95[0]) - py(p.ci95[1]));
      const band = node("rect", { class: "band", x: left, width: right - left, y: py(p.ci95[1]), height: tall, style: `fill:${colour(i)}` }, svg);
      node("line", { class: "reference", x1: left, x2: right, y1: y, y2: y, style: `stroke:${colour(i)}` }, svg);
      node("text", { x: left + 6, y: y - 5, class: "halo" }, svg, `${line.name}, ${bytesText(p.bytes)}`);
      hover(band, tellAccuracy(line.name, p));
    }
  }

  function measured(line, i) {
    const stroke = `stroke:${colour(i)}`;
    const points = [...line.points].sort((a, b) => a.bytes - b.bytes).map(p => {
      let x = px(p.bytes);
      while (taken.some(([other, there]) => other !== i && Math.abs(there - x) < 9)) x += 10;
      taken.push([i, x]);
      return [x, p];
    });
    node("path", { d: points.map(([x, p], k) => `${k ? "L" : "M"}${x},${py(p.top1)}`).join(""), class: "line", style: stroke }, svg);
    for (const [x, p] of points) {
      const group = node("g", { style: stroke }, svg), [bottom, top] = p.ci95.map(py);
      node("line", { x1: x, x2: x, y1: top, y2: bottom }, group);
      [top, bottom].forEach(y => node("line", { x1: x - 4, x2: x + 4, y1: y, y2: y }, group));
      node("circle", { cx: x, cy: py(p.top1), r: 5, style: `fill:${colour(i)}` }, group);
      hover(group, tellAccuracy(line.name, p));
    }
  }
}

document.querySelectorAll("[data-accuracy]").forEach(place => {
  const spec = data.accuracy[+place.dataset.accuracy];
  let draw = () => {};
  const hidden = legend(place.querySelector(".legend"), spec.lines.map(line => line.name), () => draw());
  draw = keepDrawn(place.querySelector("figure"), width => accuracyChart(place.querySelector("figure"), width, spec, hidden));
});

// ---- lines, or bars on top of one another, over frames or steps
function seriesChart(place, width, spec) {
  const values = spec.series.map(s => s.values), count = spec.x.length;
  const totals = spec.x.map((_, k) => values.reduce((sum, v) => sum + (v[k] || 0), 0));
  const known = values.flat().filter(v => v !== null);
  const high = Math.max(...(spec.stacked ? totals : known), 0) * 1.05 || 1, low = Math.min(0, ...known);
  const first = spec.x[0], last = spec.x[count - 1], half = spec.stacked ? 0.5 * (count > 1 ? (last - first) / (count - 1) : 1) : 0;
  const ends = first === last && !half ? [first - 1, last + 1] : [first - half, last + half];
  const { svg, px, py, left, right, top, bottom } = plane(place, width, { ...spec, x: ends, y: [low, high], whole: true });
  if (spec.stacked) {
    const wide = px(first + 2 * half) - px(first), gap = wide > 4 ? 1 : 0;
    spec.x.forEach((x, k) => {
      let from = 0;
      values.forEach((v, i) => {
        const tall = py(from) - py(from + v[k]);
        if (tall > 0) node("rect", { x: px(x) - wide / 2 + gap / 2, width: wide - gap, y: py(from + v[k]), height: tall, style: `fill:${colour(i)}` }, svg);
        from += v[k];
      });
    });
  } else values.forEach((v, i) => {
    let path = "", pen = "M";
    v.forEach((y, k) => { if (y === null) pen = "M"; else { path += `${pen}${px(spec.x[k])},${py(y)}`; pen = "L"; } });
    node("path", { d: path, class: "line", style: `stroke:${colour(i)}` }, svg);
    if (count === 1) node("circle", { cx: px(first), cy: py(v[0] || 0), r: 4, style: `fill:${colour(i)}` }, svg);
  });
  const cursor = node("line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" }, svg);
  const cover = node("rect", { x: left, width: right - left, y: top, height: bottom - top, fill: "transparent" }, svg);
  const show = e => {
    const box = svg.getBoundingClientRect(), at = (e.clientX - box.left) * (width / box.width);
    let k = 0;
    spec.x.forEach((x, j) => { if (Math.abs(px(x) - at) < Math.abs(px(spec.x[k]) - at)) k = j; });
    cursor.setAttribute("x1", px(spec.x[k])); cursor.setAttribute("x2", px(spec.x[k]));
    cursor.setAttribute("visibility", "visible");
    const told = spec.series.map(s => `${s.name}: ${s.values[k] === null ? "-" : round(s.values[k], spec.digits)}`);
    if (spec.stacked) told.push(`together: ${round(totals[k], spec.digits)}`);
    tell(e, [`${spec.xname} ${spec.x[k]} (${spec.yname})`, ...told].join("\n"));
  };
  ["pointermove", "pointerdown"].forEach(name => cover.addEventListener(name, show));
  cover.addEventListener("pointerleave", () => { hush(); cursor.setAttribute("visibility", "hidden"); });
}

document.querySelectorAll("[data-series]").forEach(place => {
  const spec = data.series[+place.dataset.series], figure = place.querySelector("figure");
  legend(place.querySelector(".legend"), spec.series.map(s => s.name), () => {}, false);
  keepDrawn(figure, width => seriesChart(figure, width, spec));
});

data.confusions.forEach(spec => {
  const n = spec.classes.length;
  for (const name in spec.counts) {
    const dense = Array.from({ length: n }, () => new Array(n).fill(0));
    spec.counts[name].forEach(([i, j, count]) => { dense[i][j] = count; });
    spec.counts[name] = dense;
  }
});

// ---- confusion: a square a pair that occurs, shaded by the share of the true class
function confusion(place, width, spec, counts) {
  const n = spec.classes.length, longest = Math.max(...spec.classes.map(c => c.length));
  const names = n <= 60, edge = names ? Math.min(150, 7 * longest + 12) : 16;
  const side = Math.max(n > 60 ? 4 : 15, Math.min(40, (width - edge - 8) / n));
  const W = edge + n * side + 8, H = edge + n * side + 26;
  place.querySelectorAll("svg").forEach(old => old.remove());
  const svg = node("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "confusion matrix", style: `width:${W}px` }, place);
  node("rect", { class: "plain", x: edge, y: 0, width: n * side, height: n * side }, svg);
  counts.forEach((row, i) => {
    const total = row.reduce((a, b) => a + b, 0), y = i * side;
    if (names) {
      const clipped = s => s.length > 20 ? `${s.slice(0, 19)}…` : s, middle = (i + 0.5) * side;
      node("text", { x: edge - 6, y: y + side / 2 + 4, "text-anchor": "end" }, svg, clipped(spec.classes[i]));
      node("text", { x: 0, y: 0, "text-anchor": "end", transform: `translate(${edge + middle + 4} ${n * side + 8}) rotate(-90)` }, svg, clipped(spec.classes[i]));
    }
    row.forEach((count, j) => {
      if (!count && !names) return;
      const x = edge + j * side, share = total ? count / total : 0;
      const box = node("rect", { class: "cell", x, y, width: side, height: side, style: `fill-opacity:${count ? 0.12 + 0.88 * share : 0}` }, svg);
      if (count && side >= 15) node("text", { class: share > 0.5 ? "full" : "", x: x + side / 2, y: y + side / 2 + 4, "text-anchor": "middle", "pointer-events": "none" }, svg, count);
      hover(box, `true ${spec.classes[i]}, taken for ${spec.classes[j]}: ${count} of ${total}${total ? ` (${Math.round(100 * share)}%)` : ""}`);
    });
  });
  node("text", { x: edge + n * side / 2, y: H - 6, "text-anchor": "middle", class: "soft" }, svg, "taken for (columns), true class (rows)");
}

document.querySelectorAll("[data-confusion]").forEach(place => {
  const spec = data.confusions[+place.dataset.confusion], names = Object.keys(spec.counts);
  const figure = place.querySelector(".grid-of-classes"), choice = place.querySelector("select");
  names.forEach(name => choice.add(new Option(name, name)));
  const draw = keepDrawn(figure, width => confusion(figure, width, spec, spec.counts[choice.value]));
  choice.addEventListener("change", draw);
});

// ---- accuracy of each class: a row a class, a dot an input
function classesChart(place, width, spec) {
  const names = Object.keys(spec.counts), n = spec.classes.length, row = 22;
  const longest = Math.max(...spec.classes.map(c => c.length)), left = Math.min(0.4 * width, 7 * longest + 60), right = width - 22;
  const H = n * row + 26, px = v => left + v * (right - left);
  place.querySelectorAll("svg").forEach(old => old.remove());
  const svg = node("svg", { viewBox: `0 0 ${width} ${H}`, role: "img", "aria-label": "accuracy of each class" }, place);
  for (const v of [0, 0.25, 0.5, 0.75, 1]) {
    node("line", { class: "grid", x1: px(v), x2: px(v), y1: 0, y2: n * row }, svg);
    node("text", { x: px(v), y: H - 8, "text-anchor": "middle" }, svg, `${100 * v}%`);
  }
  spec.classes.forEach((name, c) => {
    const total = spec.counts[names[0]][c].reduce((a, b) => a + b, 0), y = (c + 0.5) * row;
    const room = Math.floor((left - 50) / 7), text = name.length > room ? `${name.slice(0, room - 1)}…` : name;
    node("text", { x: left - 10, y: y + 4, "text-anchor": "end" }, svg, `${text} (${total})`);
    node("line", { class: "grid", x1: left, x2: right, y1: y, y2: y }, svg);
    names.forEach((input, i) => {
      const all = spec.counts[input][c].reduce((a, b) => a + b, 0), good = spec.counts[input][c][c];
      if (!all) return;
      const dot = node("circle", { cx: px(good / all), cy: y + (i - (names.length - 1) / 2) * 5, r: 4.5, style: `fill:${colour(i)}` }, svg);
      hover(dot, `${name}, ${input}: ${good} of ${all} (${Math.round(100 * good / all)}%)`);
    });
  });
}

document.querySelectorAll("[data-classes]").forEach(place => {
  const spec = data.confusions[+place.dataset.classes], figure = place.querySelector("figure");
  legend(place.querySelector(".legend"), Object.keys(spec.counts), () => {}, false);
  keepDrawn(figure, width => classesChart(figure, width, spec));
});
