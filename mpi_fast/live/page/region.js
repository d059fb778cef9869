// The region: a box that the operator drags on an image, its mean, and the time course of that.
"use strict";

function draggable(canvas, view, { rows, columns }) {
  let from = null;
  const voxel = (event) => {
    const box = canvas.getBoundingClientRect();
    const inside = (value, count) => Math.max(0, Math.min(count - 1, Math.floor(value * count)));
    const x = inside((event.clientX - box.left) / box.width, columns);
    return [x, inside(1 - (event.clientY - box.top) / box.height, rows)];
  };
  const drag = (event) => {
    if (!from) return;
    const to = voxel(event);
    const [x, y] = [0, 1].map((k) => Math.min(from[k], to[k]));
    choose({ view, x, y, width: Math.abs(to[0] - from[0]) + 1, height: Math.abs(to[1] - from[1]) + 1 });
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    from = voxel(event);
    drag(event);
  });
  canvas.addEventListener("pointermove", drag);
  canvas.addEventListener("pointerup", () => { from = null; });
  canvas.addEventListener("pointercancel", () => { from = null; });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const now = state.region.view === view ? state.region : { ...state.region, view, x: 0, y: 0, width: 3, height: 3 };
    const [x, y] = event.shiftKey ? [0, 0] : step, [wider, higher] = event.shiftKey ? step : [0, 0];
    choose({ view, x: now.x + x, y: now.y + y, width: now.width + wider, height: now.height + higher });
  });
}

function choose(wanted) {
  const { rows, columns, axes, size_mm } = state.hello.views[wanted.view];
  const inside = (value, low, high) => Math.max(low, Math.min(high, value));
  const width = inside(wanted.width, 1, columns), height = inside(wanted.height, 1, rows);
  const region = { view: wanted.view, width, height };
  region.x = inside(wanted.x, 0, columns - width);
  region.y = inside(wanted.y, 0, rows - height);
  state.region = region;
  const span = (start, count, all, mm) => `${short((start / all - 0.5) * mm)} to ${short(((start + count) / all - 0.5) * mm)} mm`;
  $("region").textContent =
    `${axes[1]} ${span(region.x, width, columns, size_mm[1])}, ${axes[0]} ${span(region.y, height, rows, size_mm[0])}`;
  panes.image.forEach(({ frame }, index) => {
    const context = frame.getContext("2d");
    context.clearRect(0, 0, frame.width, frame.height);
    if (index !== region.view) return;
    const [w, h] = [frame.width / columns, frame.height / rows];
    context.strokeStyle = "#6cb6ff";
    context.lineWidth = 2;
    context.strokeRect(region.x * w, (rows - region.y - height) * h, width * w, height * h);
  });
  state.dirty = true;
}

function meanOf(picture) {
  const { view, x, y, width, height } = state.region, { columns } = state.hello.views[view];
  let sum = 0;
  for (let row = y; row < y + height; row++) {
    for (let column = x; column < x + width; column++) sum += picture.image[view][row * columns + column];
  }
  return sum / (width * height);
}

function course() {
  const canvas = $("course"), context = canvas.getContext("2d");
  const pictures = state.held || state.kept, means = pictures.map(meanOf);
  const slots = Math.max(means.length, 100);
  const highest = means.reduce((most, value) => (value > most ? value : most), 0) || 1;
  const [left, bottom] = [64, 20], [right, top] = [canvas.width - 8, 8];
  const height = canvas.height - bottom - top;
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = context.strokeStyle = "#a8a8a8";
  context.font = "12px system-ui, sans-serif";
  context.strokeRect(left, top, right - left, height);
  context.textAlign = "right";
  context.fillText(short(highest), left - 6, top + 10);
  context.fillText("0", left - 6, top + height);
  if (pictures.length) {
    const end = left + ((means.length - 1) / (slots - 1)) * (right - left);
    context.fillText(`frame ${pictures[pictures.length - 1].number}`, Math.max(end, left + 160), canvas.height - 5);
    context.textAlign = "left";
    context.fillText(`frame ${pictures[0].number}`, left, canvas.height - 5);
  }
  context.strokeStyle = "#6cb6ff";
  context.lineWidth = 1.5;
  context.beginPath();
  let drawing = false;
  means.forEach((value, index) => {
    const px = left + (index / (slots - 1)) * (right - left);
    const py = top + height * (1 - value / highest);
    if (Number.isNaN(value)) drawing = false; // a gap where there is no image
    else if (drawing) context.lineTo(px, py);
    else { context.moveTo(px, py); drawing = true; }
  });
  context.stroke();
  $("mean").textContent = means.length ? short(means[means.length - 1]) : "";
}
