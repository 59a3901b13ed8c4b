/* The cards of the live picture: devices, a processor, Output, and each card's values when it is opened.
 *
 * First of the parts that `widget.py` joins into one ES module. `scene.py` says the order of the lists in
 * `numbers`.
 */

const SVG = "http://www.w3.org/2000/svg";
const CARD = { w: 208, h: 120 };
const ROW = 19; // the height of a device's line
const MINUTE = 60;

// ---- numbers in words (the same spelling as wording.py) ---------------------------------------------------

const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const digits = (v) => (Math.abs(v) >= 99.95 ? v.toFixed(0)
  : String(parseFloat(v.toFixed(Math.abs(v) >= 9.995 ? 1 : 2))));

export function count(v) {
  if (Math.abs(v) < 10000) return grouped.format(v);
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(v) >= size * 0.9995) return digits(v / size) + unit;
  }
}
export const rate = (v) => (v <= 0 ? "0" : v < 99.95 ? v.toFixed(1).replace(/\.0$/, "") : count(v));
export function duration(s) {
  if (s <= 0) return "–";
  for (const [size, unit] of [[1, "s"], [1e-3, "ms"]]) if (s >= size * 0.9995) return `${digits(s / size)} ${unit}`;
  return `${Math.max(1, Math.round(s * 1e6))} µs`;
}
export const share = (v) => `${Math.round(100 * Math.min(1, Math.max(0, v)))} %`;
export function span(s) {
  const n = Math.floor(Math.max(0, s));
  if (n < 60) return `${n} s`;
  return n < 3600 ? `${Math.floor(n / 60)} min ${n % 60} s` : `${Math.floor(n / 3600)} h ${Math.floor((n % 3600) / 60)} min`;
}

// ---- small helpers for elements ---------------------------------------------------------------------------

function make(tag, attrs = {}, ...children) {
  const el = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [k, v] of Object.entries(attrs)) if (v !== undefined) el.setAttribute(k, v);
  el.append(...children);
  return el;
}
const svg = (tag, attrs, ...children) => make(`svg:${tag}`, attrs, ...children);
const text = (x, y, cls, content = "") => svg("text", { x, y, class: cls }, content);
function say(el, words) { if (el.textContent !== words) el.textContent = words; }
function mark(el, name, value) { if (el.getAttribute(name) !== String(value)) el.setAttribute(name, value); }

let canvas;
function widthOf(words, font = "11px system-ui, sans-serif") {
  canvas ??= document.createElement("canvas").getContext("2d");
  canvas.font = font;
  return canvas.measureText(words).width;
}

function cut(words, width, font = "600 13px system-ui, sans-serif") {
  if (widthOf(words, font) <= width) return words;
  let kept = words;
  while (kept.length > 1 && widthOf(kept + "…", font) > width) kept = kept.slice(0, -1);
  return kept + "…";
}

/** Return the first of `choices` that fits into `width`, else the last: numbers grow while a card doesn't. */
const fitting = (choices, width, font) => choices.find((words) => widthOf(words, font) <= width) ?? choices.at(-1);

// ---- cards ------------------------------------------------------------------------------------------------

function frame(node, place) {
  const g = svg("g", { class: `pp-node pp-${node.kind}`, transform: `translate(${place.x},${place.y})`, tabindex: "-1",
    role: "button", "data-key": node.key });
  g.append(svg("rect", { class: "pp-card", width: place.w, height: place.h, rx: 8 }));
  return g;
}

function spark(x, y, w, h) {
  const area = svg("path", { class: "pp-area" });
  const line = svg("path", { class: "pp-line" });
  const g = svg("g", { class: "pp-spark", transform: `translate(${x},${y})`, "aria-hidden": "true" }, area, line);
  return { g, draw(values) {
    if (values.length < 2) return;
    const most = Math.max(...values, 1e-9);
    const step = w / (MINUTE - 1);
    const x0 = w - (values.length - 1) * step;
    const points = values.map((v, i) => `${(x0 + i * step).toFixed(1)},${(h - (v / most) * (h - 2) - 1).toFixed(1)}`);
    mark(line, "d", `M${points.join("L")}`);
    mark(area, "d", `M${x0.toFixed(1)},${h}L${points.join("L")}L${w},${h}Z`);
  } };
}

function figure(g, place) {
  const value = svg("tspan", { class: "pp-big" });
  g.append(svg("text", { x: 14, y: 54 }, value, svg("tspan", { class: "pp-dim", dx: 3 }, "/s")));
  const minute = spark(place.w - 100, 32, 88, 26);
  g.append(minute.g);
  return { value, minute };
}

function processorCard(node, place) {
  const g = frame(node, place);
  const name = text(14, 22, "pp-title");
  const badge = text(place.w - 12, 22, "pp-state pp-end");
  const big = figure(g, place);
  const [flowed, queued] = [text(14, 76, "pp-small"), text(place.w - 12, 76, "pp-small pp-end")];
  const [took, failed] = [text(14, 92, "pp-small"), text(place.w - 12, 92, "pp-small pp-end pp-failed")];
  const busy = text(place.w - 12, 110, "pp-small pp-end");
  const track = place.w - 100;
  const bar = svg("rect", { class: "pp-busy", x: 14, y: 105, height: 4, rx: 2, width: 0 });
  g.append(name, badge, flowed, queued, took, failed, busy,
    svg("rect", { class: "pp-track", x: 14, y: 105, width: track, height: 4, rx: 2 }), bar);
  return { g, update(n, flow, history) {
    const p = n.processors[node.key];
    if (!p) return;
    const [state, perSecond, received, emitted, errors, , p50, p99, atWork, waiting, version, , newer] = p;
    const own = state !== "running" && state !== flow ? state : newer ? "newer code" : version ? `v${version + 1}` : "";
    if (own !== badge.textContent || !name.textContent) say(name, cut(node.key, own ? 112 : place.w - 28));
    say(badge, own);
    mark(badge, "data-state", own === state || newer);
    say(big.value, rate(perSecond));
    say(flowed, `in ${count(received)}  out ${count(emitted)}`);
    const left = place.w - 34 - widthOf(flowed.textContent);
    say(queued, waiting ? fitting([`${count(waiting)} waiting`, `+${count(waiting)}`], left) : "");
    say(failed, errors ? `⚠ ${count(errors)} failed` : "");
    mark(failed, "data-on", errors > 0);
    say(took, errors ? `p50 ${duration(p50)}` : `p50 ${duration(p50)}  p99 ${duration(p99)}`);
    say(busy, `${share(atWork)} busy`);
    mark(bar, "width", (track * Math.min(1, atWork)).toFixed(1));
    mark(g, "data-heat", atWork >= 0.9 ? "hot" : atWork >= 0.7 ? "warm" : atWork >= 0.05 ? "mild" : "calm");
    mark(g, "data-state", state);
    g.style.setProperty("--busy", Math.min(1, atWork).toFixed(2));
    big.minute.draw(history);
    mark(g, "aria-label", `Processor ${node.key}, ${state}, ${rate(perSecond)} messages a second, ${received} in, ` +
      `${emitted} out, ${errors} failed, busy ${share(atWork)}${newer ? ", its code is newer than what runs" : ""}`);
  } };
}

function outputCard(node, place) {
  const g = frame(node, place);
  const note = text(place.w - 12, 22, "pp-small pp-end pp-failed");
  const big = figure(g, place);
  const [total, took, orders] = [text(14, 76, "pp-small"), text(14, 92, "pp-small"), text(14, 108, "pp-small")];
  g.append(text(14, 22, "pp-title", node.key), note, total, took, orders);
  return { g, update(n, flow, history) {
    const unread = Object.values(n.readers).reduce((sum, r) => sum + r[0], 0);
    const bad = [[n.dropped, "lost"], [n.dead, "dead-lettered"]].filter(([k]) => k);
    const told = (words) => `⚠ ${words.join(", ")}`;
    say(big.value, rate(n.rate));
    say(note, bad.length ? fitting([told(bad.map(([k, word]) => `${count(k)} ${word}`)), told(bad.map(([k, word]) =>
      `${count(k)} ${word.slice(0, 4)}`)), told(bad.map(([k]) => count(k)))], place.w - 82, "600 11px system-ui, sans-serif")
      : n.in_flight ? `${count(n.in_flight)} in flight` : "");
    mark(note, "data-on", bad.length > 0);
    say(total, `${count(n.delivered)} delivered`);
    say(took, `p50 ${duration(n.p50)}  p99 ${duration(n.p99)}`);
    const [, received, replies, sent, , , held] = n.back;
    say(orders, received + replies ? `orders ${count(received + replies)}  sent ${count(sent)}${held ? `  held ${count(held)}` : ""}`
      : unread ? `${count(unread)} frames unread` : "");
    big.minute.draw(history);
    mark(g, "aria-label", `Output, ${rate(n.rate)} messages a second, ${n.delivered} delivered, median latency ${duration(n.p50)}`);
  } };
}

function devicesCard(node, place) {
  const g = frame(node, place);
  const [title, note] = [text(14, 22, "pp-title", "Devices"), text(14, 40, "pp-small")];
  const [total, queued] = [text(place.w - 12, 22, "pp-small pp-end"), text(place.w - 12, 40, "pp-small pp-end")];
  const rows = svg("g", { transform: "translate(0,58)" });
  g.append(title, note, total, queued, rows);
  const lines = [];
  function line(i) {
    if (!lines[i]) {
      const [dot, name, value] = [svg("circle", { class: "pp-dot", cx: 18, cy: i * ROW - 4 + 6, r: 3.5 }),
        text(29, i * ROW + 6, "pp-device"), text(place.w - 12, i * ROW + 6, "pp-small pp-end")];
      lines[i] = { g: svg("g", {}, dot, name, value), name, value };
      rows.append(lines[i].g);
    }
    return lines[i];
  }
  return { g, update(n) {
    const { count: all, connected, shown } = n.devices;
    say(title, all > shown.length ? `${count(all)} devices` : "Devices");
    say(total, `${rate(n.devices.rate)} /s`);
    say(note, !all ? "none has connected yet" : `${count(connected)} connected${all > connected ? `  ${count(all - connected)} away` : ""}`);
    const left = place.w - 34 - widthOf(note.textContent);
    say(queued, n.waiting ? fitting([`${count(n.waiting)} frames waiting`, `${count(n.waiting)} waiting`, `+${count(n.waiting)}`], left) : "");
    shown.forEach(([name, on, perSecond, , error], i) => {
      const at = line(i);
      mark(at.g, "data-on", on);
      mark(at.g, "data-error", error !== "");
      say(at.name, cut((error ? "⚠ " : "") + name, 120, "12px system-ui, sans-serif"));
      say(at.value, on ? `${rate(perSecond)} /s` : "away");
    });
    lines.forEach((l, i) => { l.g.style.display = i < shown.length ? "" : "none"; });
    mark(g, "aria-label", `Devices: ${connected} of ${all} connected, ${rate(n.devices.rate)} messages a second. ` +
      shown.map(([name, on]) => `${name} ${on ? "connected" : "away"}`).join(", "));
  } };
}

const CARDS = { devices: devicesCard, processor: processorCard, output: outputCard };

// ---- the values of an opened node -------------------------------------------------------------------------

function details(node, n) {
  if (node.kind === "processor") {
    const p = n.processors[node.key];
    if (!p) return [];
    const [state, perSecond, received, emitted, failed, retried, p50, p99, busy, waiting, version, , newer] = p;
    return [["state", state], ["rate", `${rate(perSecond)} /s`], ["received", grouped.format(received)],
      ["emitted", grouped.format(emitted)], ["failed", grouped.format(failed)], ["retried", grouped.format(retried)],
      ["waiting", grouped.format(waiting)], ["busy", share(busy)], ["p50", duration(p50)], ["p99", duration(p99)],
      ...(version || newer ? [["code swapped", `${version} ×${newer ? ", newer code not running yet" : ""}`]] : [])];
  }
  if (node.kind === "output") {
    const [, received, replies, sent, failed, expired, held] = n.back;
    return [["delivered", grouped.format(n.delivered)], ["rate", `${rate(n.rate)} /s`], ["p50", duration(n.p50)],
      ["p99", duration(n.p99)], ["in flight", grouped.format(n.in_flight)],
      ["dropped", grouped.format(n.dropped)], ["repeats skipped", grouped.format(n.repeats)],
      ["dead-lettered", grouped.format(n.dead)], ["malformed frames", grouped.format(n.malformed)],
      ...[["orders received", received], ["replies", replies], ["orders sent", sent], ["orders held", held], ["orders expired", expired],
        ["orders failed", failed]].filter(([, number]) => number).map(([term, number]) => [term, grouped.format(number)]),
      ...Object.entries(n.readers).map(([name, [unread, blocking, skipped]]) => [`reader ${name}`,
        `${count(unread)} frames unread${blocking ? ", blocking" : ""}${skipped ? `, ${count(skipped)} skipped` : ""}`])];
  }
  return [["connected", `${n.devices.connected} of ${n.devices.count}`], ["received", grouped.format(n.received)],
    ["rate", `${rate(n.devices.rate)} /s`], ["frames waiting", grouped.format(n.waiting)],
    ["gaps", grouped.format(n.devices.gaps)]];
}
