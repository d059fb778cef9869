// The live page: pictures come as binary messages (see mpi_fast/live/messages.py), are kept for a while, and drawn when
// the browser wants to draw, so that a slow screen costs no picture of the time course.
"use strict";

const KEPT = 1000; // pictures that the time course shows
const WIDTH = 370; // pixels of an image
const RETRY_MS = 1000;
const DRAW_MS = 40; // between two drawings: more would cost the processor that makes the images, and nobody sees it

const $ = (id) => document.getElementById(id);
const state = {
  hello: null, status: null, socket: null, kept: [], held: null, shown: null, paused: false, dirty: false,
  region: null, peak: 0, peakStd: 0, skipped: 0, received: 0, times: [], drawn: 0,
};
const panes = { image: [], std: [] };

// -- what comes -------------------------------------------------------------------------------------------------------

function connect() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/stream`);
  socket.binaryType = "arraybuffer";
  state.socket = socket;
  socket.onopen = () => connection("connected", false);
  socket.onmessage = (event) => (typeof event.data === "string" ? told(JSON.parse(event.data)) : pictured(event.data));
  socket.onclose = (event) => {
    connection(event.reason || "not connected", true);
    setTimeout(connect, RETRY_MS);
  };
}

function connection(text, alarm) {
  $("connection").textContent = text;
  $("connection").classList.toggle("alarm", alarm);
}

function told(message) {
  if (message.kind === "hello") begin(message);
  else if (message.kind === "status") { state.status = message; state.dirty = true; }
  else say(message.error, true);
}

function begin(hello) {
  Object.assign(state, { hello, kept: [], shown: null, peak: 0, peakStd: 0 }); // it may be another scanner than before
  pause(false);
  $("source").textContent = [hello.source, ...Object.values(hello.facts)].join(" · ");
  for (const unit of document.querySelectorAll(".unit")) unit.textContent = hello.unit;
  for (const kind of ["image", "std"]) panes[kind] = build(kind, hello.views);
  const { rows, columns } = hello.views[hello.views.length - 1];
  const region = { view: hello.views.length - 1, x: Math.floor(columns / 3), y: Math.floor(rows / 3) };
  choose({ ...region, width: Math.ceil(columns / 3), height: Math.ceil(rows / 3) });
}

function pictured(buffer) {
  if (!state.hello) return;
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let at = 4 + length;
  state.skipped += header.skipped;
  for (const facts of header.images) {
    const picture = { ...facts, image: [], std: [] };
    for (const kind of ["image", "std"]) {
      for (const { rows, columns } of state.hello.views) {
        picture[kind].push(new Float32Array(buffer, at, rows * columns));
        at += 4 * rows * columns;
      }
    }
    state.received += 1;
    state.kept.push(picture);
    state.times.push(performance.now());
    if (picture.flags.length) say(`frame ${picture.number}: ${picture.error || picture.flags.join(", ")}`, true);
  }
  if (state.kept.length > KEPT) state.kept.splice(0, state.kept.length - KEPT);
  if (state.times.length > KEPT) state.times.splice(0, state.times.length - KEPT);
  if (!state.paused) state.shown = state.kept[state.kept.length - 1];
  state.dirty = true;
}

// -- images -----------------------------------------------------------------------------------------------------------

function build(kind, views) {
  const holder = $(kind);
  holder.replaceChildren();
  const across = views.length === 1 ? views[0].size_mm[1] : views[0].size_mm[1] + views[1].size_mm[1];
  const scale = (WIDTH - (views.length > 1 ? 6 : 0)) / across;
  holder.style.gridTemplateColumns = views.length === 1 ? "auto" : "auto auto";
  return views.map((view, index) => {
    const cell = document.createElement("div"), canvas = document.createElement("canvas");
    const label = document.createElement("span");
    cell.className = "view";
    canvas.width = view.columns;
    canvas.height = view.rows;
    canvas.style.width = `${Math.max(8, view.size_mm[1] * scale)}px`;
    canvas.style.height = `${Math.max(8, view.size_mm[0] * scale)}px`;
    const [up, right] = view.axes;
    const size = `${view.size_mm[1].toPrecision(3)} × ${view.size_mm[0].toPrecision(3)} mm`;
    label.textContent = `${right} →  ${up} ↑  ${size}`;
    canvas.setAttribute("aria-label", `${kind === "image" ? "Concentration" : "Uncertainty"}, ${right} to the right, ${up} up`);
    const frame = document.createElement("canvas"); // the region's frame, as fine as the screen
    frame.width = parseFloat(canvas.style.width);
    frame.height = parseFloat(canvas.style.height);
    frame.className = "frame";
    if (kind === "image") {
      canvas.tabIndex = 0;
      canvas.setAttribute("role", "application");
      draggable(canvas, index, view);
    }
    cell.append(canvas, frame, label);
    holder.append(cell);
    return { canvas, frame };
  });
}

function limits() {
  if (!$("auto").checked) return [Number($("low").value), Number($("high").value)];
  return [0, state.peak || 1];
}

function follow(peak, maps) {
  let found = 0;
  for (const map of maps) for (const value of map) if (value > found) found = value;
  return Math.max(found, 0.99 * peak); // so that the colours do not flicker
}

function draw(now) {
  requestAnimationFrame(draw);
  if (!state.dirty || !state.hello || now - state.drawn < DRAW_MS) return;
  Object.assign(state, { dirty: false, drawn: now });
  const picture = state.shown;
  if (picture) {
    state.peak = follow(state.peak, picture.image);
    state.peakStd = follow(state.peakStd, picture.std);
    const [low, high] = limits(), colours = tables[$("colours").value];
    state.hello.views.forEach((view, index) => {
      paint(panes.image[index].canvas, picture.image[index], view.rows, view.columns, low, high, colours);
      paint(panes.std[index].canvas, picture.std[index], view.rows, view.columns, 0, state.peakStd, tables.viridis);
    });
    bar("image", low, high, colours);
    bar("std", 0, state.peakStd, tables.viridis);
    course();
  }
  numbers();
}

function bar(kind, low, high, colours) {
  const ramp = Float32Array.from({ length: 256 }, (_, index) => index);
  const canvas = $(`${kind}-bar`);
  canvas.height = 1;
  paint(canvas, ramp, 1, 256, 0, 255, colours);
  $(`${kind}-low`).textContent = short(low);
  $(`${kind}-high`).textContent = short(high);
}

// -- numbers ----------------------------------------------------------------------------------------------------------

function short(value) {
  return value === null || Number.isNaN(value) ? "–" : String(Number(value.toPrecision(3)));
}

function numbers() {
  const rows = [], picture = state.shown, status = state.status;
  const span = state.times.length > 1 ? state.times[state.times.length - 1] - state.times[0] : 0;
  if (picture) {
    rows.push(["frame", picture.period ? `${picture.number}, period ${picture.period}` : picture.number]);
    rows.push(["mean of", `${picture.averaged}`], ["SNR", `${short(picture.snr_db)} dB`]);
    rows.push(["flags", picture.flags.join(", ") || "none", picture.flags.length > 0]);
    rows.push(["latency", `${short(picture.latency_ms)} ms`]);
  }
  if (span) rows.push(["images/s", short((1000 * (state.times.length - 1)) / span)]);
  if (status) {
    const found = status.statistics, times = found.latency_ms;
    for (const name of ["p50", "p90", "p99", "p99.9"]) if (name in times) rows.push([`latency ${name}`, `${short(times[name])} ms`]);
    rows.push(["frames", found.frames], ["images", found.images]);
    const alarms = { "frames dropped": found.frames_dropped, "images dropped": found.images_dropped, "frames missing": found.missing };
    Object.assign(alarms, { "frames refused": found.refused, "images failed": found.failed, "clock jumps": found.jumps });
    for (const [name, count] of Object.entries(alarms)) rows.push([name, count, count > 0]);
    for (const [name, count] of Object.entries(found.flags)) if (count) rows.push([`images ${name}`, count, name !== "empty"]);
    rows.push(["background frames", found.background]);
    const { running, file, images, dropped, error } = status.recording;
    const lost = dropped ? `, ${dropped} dropped` : "";
    rows.push(["recording", error || (file ? `${file}: ${images} images${lost}${running ? "" : ", ended"}` : "none"), Boolean(error || dropped)]);
    $("record").setAttribute("aria-pressed", running);
    $("record").textContent = running ? "Stop recording" : "Record";
    rows.push(["source", status.source, status.source.startsWith("failed")]);
    if (found.last_error) rows.push(["last error", found.last_error, true]);
    rows.push(["pages open", status.clients]);
  }
  rows.push(["not shown here", state.skipped, state.skipped > 0]);
  $("numbers").replaceChildren(...rows.flatMap(([name, value, alarm]) => {
    const term = document.createElement("dt"), description = document.createElement("dd");
    term.textContent = name;
    description.textContent = value;
    description.classList.toggle("alarm", Boolean(alarm));
    return [term, description];
  }));
}

function say(text, alarm = false) {
  $("message").textContent = text;
  $("message").classList.toggle("alarm", alarm);
}

// -- what the operator does -------------------------------------------------------------------------------------------

function pause(paused) {
  // The pictures of a paused page are held, because `kept` goes on and loses them.
  Object.assign(state, { paused, held: paused ? [...state.kept] : null, dirty: true });
  $("pause").setAttribute("aria-pressed", paused);
  $("pause").textContent = paused ? "Go on" : "Pause";
  if (!paused && state.kept.length) state.shown = state.kept[state.kept.length - 1];
}

const actions = {
  pause() {
    pause(!state.paused);
    say(state.paused ? `paused${state.shown ? ` at frame ${state.shown.number}` : ""}` : "running");
  },
  record() {
    const running = $("record").getAttribute("aria-pressed") === "true";
    if (state.socket && state.socket.readyState === WebSocket.OPEN) state.socket.send(JSON.stringify({ record: !running }));
    else say("not connected: nothing is recorded", true);
  },
  snapshot() {
    if (!state.shown) { say("no image yet", true); return; }
    const sheet = document.createElement("canvas"), context = sheet.getContext("2d");
    const boxes = [...document.querySelectorAll(".view canvas:first-child")].map((one) => [one, one.getBoundingClientRect()]);
    const origin = $("image").getBoundingClientRect(), std = $("std").getBoundingClientRect();
    sheet.width = std.left - origin.left + WIDTH + 32;
    sheet.height = Math.max(...boxes.map(([, box]) => box.bottom - origin.top)) + 90;
    context.fillStyle = "#141414";
    context.fillRect(0, 0, sheet.width, sheet.height);
    context.imageSmoothingEnabled = false;
    for (const [canvas, box] of boxes) {
      const top = box.top - (canvas.closest("#std") ? std.top : origin.top);
      context.drawImage(canvas, box.left - origin.left + 16, top + 16, box.width, box.height);
    }
    context.fillStyle = "#eee";
    context.font = "14px system-ui, sans-serif";
    for (const [kind, left] of [["image", 16], ["std", std.left - origin.left + 16]]) {
      context.drawImage($(`${kind}-bar`), left, sheet.height - 62, WIDTH, 12);
      const range = `${$(`${kind}-low`).textContent} to ${$(`${kind}-high`).textContent} ${state.hello.unit}`;
      context.fillText(`${kind === "image" ? "concentration" : "uncertainty"} ${range}`, left, sheet.height - 34);
    }
    const { number, timestamp, flags } = state.shown;
    const when = timestamp === null ? "" : `, ${new Date(1000 * timestamp).toISOString()}`;
    context.fillText(`frame ${number}${when}${flags.length ? `, ${flags.join(", ")}` : ""}`, 16, sheet.height - 12);
    const link = document.createElement("a");
    link.download = `live-${number}.png`;
    sheet.toBlob((blob) => {
      link.href = URL.createObjectURL(blob);
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
    say(`snapshot of frame ${number}`);
  },
  colours() {
    $("colours").selectedIndex = ($("colours").selectedIndex + 1) % $("colours").length;
    state.dirty = true;
  },
  automatic() {
    $("auto").checked = !$("auto").checked;
    windowed();
  },
  scale(factor) {
    if ($("auto").checked) actions.automatic();
    $("high").value = Number((factor * Number($("high").value)).toPrecision(3));
    state.dirty = true;
  },
};

function windowed() {
  const auto = $("auto").checked;
  if (!auto) [$("low").value, $("high").value] = [0, Number((state.peak || 1).toPrecision(3))];
  $("low").disabled = $("high").disabled = auto;
  state.dirty = true;
}

const KEYS = { " ": () => actions.pause(), s: () => actions.snapshot(), r: () => actions.record(), c: () => actions.colours(),
  a: () => actions.automatic(), "[": () => actions.scale(1 / 1.25), "]": () => actions.scale(1.25) };

addEventListener("keydown", (event) => {
  const typing = ["INPUT", "SELECT", "BUTTON"].includes(event.target.tagName) && (event.key === " " || event.target.type === "number" || event.target.tagName === "SELECT");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});
$("pause").onclick = actions.pause;
$("record").onclick = actions.record;
$("snapshot").onclick = actions.snapshot;
$("auto").onchange = windowed;
$("colours").onchange = $("low").oninput = $("high").oninput = () => { state.dirty = true; };
$("colours").append(...Object.keys(MAPS).map((name) => new Option(name)));
connect();
requestAnimationFrame(draw);
