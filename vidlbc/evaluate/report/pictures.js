// The player with its divider, and the maps of where the bits go.

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
    if (video.duration && document.activeElement !== seek) seek.value = video.currentTime / video.duration;
    const told = [a, b].map((s, i) => `${i ? "right" : "left"}: ${spec.panels[s.value].caption}`).join("\n");
    if (note.textContent !== told) note.textContent = told;
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

// ---- where the bits go: heat over a frame, the same scale for every map and frame
const heat = [[0, 0, 4], [40, 17, 89], [114, 31, 129], [183, 55, 121], [241, 96, 93], [254, 176, 120], [252, 253, 191]];

function heatAt(share) {
  const at = Math.min(1, Math.max(0, share)) * (heat.length - 1), i = Math.min(heat.length - 2, Math.floor(at));
  return heat[i].map((v, c) => Math.round(v + (heat[i + 1][c] - v) * (at - i)));
}

document.querySelectorAll("[data-maps]").forEach(place => {
  const spec = data.maps[+place.dataset.maps], { rows, columns, width, height } = spec;
  const [seek, strength] = place.querySelectorAll("input"), label = place.querySelector("output"), panels = place.querySelector(".maps");
  const pictures = spec.pictures.map(source => { const image = new Image(); image.src = source; return image; });
  const views = spec.maps.map(map => {
    const text = atob(map.shares), shares = Uint8Array.from(text, c => c.charCodeAt(0));
    const figure = element("figure", panels), canvas = element("canvas", figure), caption = element("figcaption", figure);
    canvas.width = width; canvas.height = height;
    const small = document.createElement("canvas");
    small.width = columns; small.height = rows;
    // Stored as the root of the share of the highest value: small values keep their differences.
    const value = (frame, row, column) => spec.highest * (shares[(frame * rows + row) * columns + column] / 255) ** 2;
    const view = { map, canvas, caption, small, value };
    ["pointermove", "pointerdown"].forEach(name => canvas.addEventListener(name, e => {
      const r = canvas.getBoundingClientRect();
      const column = Math.min(columns - 1, Math.floor((e.clientX - r.left) / r.width * width / spec.cell));
      const row = Math.min(rows - 1, Math.floor((e.clientY - r.top) / r.height * height / spec.cell));
      if (row >= 0 && column >= 0) tell(e, views.map(v => `${v.map.name}: ${v.value(+seek.value, row, column).toPrecision(2)} bit/pixel`).join("\n"));
    }));
    canvas.addEventListener("pointerleave", hush);
    return view;
  });
  const paint = () => {
    const k = +seek.value;
    label.textContent = `frame ${spec.frames[k]}`;
    for (const { map, canvas, caption, small, value } of views) {
      const context = canvas.getContext("2d"), cells = small.getContext("2d").createImageData(columns, rows);
      for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) {
        const share = Math.sqrt(value(k, row, column) / spec.highest || 0);
        cells.data.set([...heatAt(share), 255], 4 * (row * columns + column));
      }
      small.getContext("2d").putImageData(cells, 0, 0);
      context.globalAlpha = 1;
      if (pictures[k].complete && pictures[k].naturalWidth) context.drawImage(pictures[k], 0, 0, width, height);
      context.globalAlpha = +strength.value;
      context.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, columns * spec.cell, rows * spec.cell);
      caption.textContent = `${map.name}: ${round(map.bits[k], 0)} bits inside the picture`;
    }
  };
  const scale = place.querySelector(".scale"), bar = scale.getContext("2d");
  for (let x = 0; x < scale.width; x++) { bar.fillStyle = `rgb(${heatAt(x / (scale.width - 1))})`; bar.fillRect(x, 0, 1, scale.height); }
  const marks = place.querySelector(".marks");
  for (const share of [0, 0.25, 0.5, 0.75, 1]) element("span", marks, `${+(spec.highest * share ** 2).toPrecision(2)}`);
  seek.max = spec.frames.length - 1;
  [seek, strength].forEach(input => input.addEventListener("input", paint));
  pictures.forEach(image => image.addEventListener("load", paint));
  paint();
});
document.body.dataset.ready = "yes";
