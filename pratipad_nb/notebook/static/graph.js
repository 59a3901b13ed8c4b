/* The live picture of one flow: an anywidget, hand-written SVG, no dependency, no build.
 *
 * Last of the parts that `widget.py` joins into one ES module. Owns the frame, the edges, updates and input:
 * `cards.js` owns the cards, `inspector.js` an opened node, `geometry.js` positions, `camera.js` pan and
 * zoom. Reads three traits: `structure` (nodes and edges; changes with the notation), `numbers` (several
 * times a second) and `history` (a rate a second for the last minute, for a page that opens late). Sends
 * actions, such as `{do: "stop"}`.
 */

const MOST_MOVING = 6; // edges that move at a time: each costs the browser repaints
const SILENCE = 3000; // ms without new numbers after which the picture no longer claims that the flow runs
const LAYERS = { devices: "Device layer", processor: "Edge layer", output: "Cloud layer" };
const CONTROLS = {
  stop: ["Stop", "Finish the messages in flight, then stop. Stored messages stay.", ["starting", "running", "paused"]],
  pause: ["Pause", "Take no more messages for now", ["running"]],
  resume: ["Resume", "Go on taking messages", ["paused"]],
};
const ENDED = ["stopped", "failed"];

// ---- edges ------------------------------------------------------------------------------------------------

const thickness = (perSecond) => (1.25 + Math.min(4.75, 1.1 * Math.log10(1 + perSecond))).toFixed(2);
const arrow = (x, y, to) => `M${x},${y}l${-8 * to},-4.5v9z`;

function drawEdge(edge, places) {
  const [a, b] = [places.get(edge.from), places.get(edge.to)];
  const there = way(a, b, edge.back ? -8 : 0);
  const line = svg("path", { class: "pp-edge", d: there.d });
  const beads = svg("path", { class: "pp-beads", d: there.d });
  const g = svg("g", { "aria-hidden": "true" }, line, beads, svg("path", { class: "pp-head-there", d: arrow(there.x2, there.y2, 1) }));
  let back;
  if (edge.back) {
    const reverse = way(a, b, 8);
    back = svg("path", { class: "pp-edge-back", d: reverse.d });
    g.append(back, svg("path", { class: "pp-head-back", d: arrow(reverse.x1, reverse.y1, -1) }));
  }
  return { g, edge, beads, update(perSecond, orders) {
    mark(line, "stroke-width", thickness(perSecond));
    mark(beads, "stroke-width", Math.max(1.2, thickness(perSecond) * 0.5).toFixed(2));
    if (back) mark(back, "stroke-width", thickness(orders));
  } };
}

/** Return the messages a second on the way into a node. */
function traffic(key, n) {
  if (key === "Output") return n.rate;
  return n.processors[key]?.[1] ?? 0;
}

// ---- the frame around the graph ---------------------------------------------------------------------------

function notationParts(notation) {
  return notation.split(/(<~>|~>|\b(?:Push|Pull|Demand|Output)\b)/).filter(Boolean).map((part) => {
    if (part === "<~>" || part === "~>") return make("span", { class: "pp-arrow" }, part);
    return /^(Push|Pull|Demand|Output)$/.test(part) ? make("b", {}, part) : part;
  });
}

function skeleton(send) {
  const parts = {
    name: make("span", { class: "pp-name" }), badge: make("span", { class: "pp-badge" }),
    live: make("span", { class: "pp-hidden", role: "status", "aria-live": "polite" }),
    notation: make("code", { class: "pp-notation" }), meta: make("span", { class: "pp-meta" }),
    controls: make("span", { class: "pp-controls" }), alert: make("div", { class: "pp-alert", role: "alert", hidden: "" }),
    view: svg("svg", { class: "pp-view", role: "group" }), scene: svg("g"),
    zoom: make("div", { class: "pp-zoom" }),
  };
  parts.view.append(parts.scene);
  parts.top = make("div", { class: "pp-top" }, parts.name, parts.badge, parts.notation, parts.meta, parts.controls);
  parts.stage = make("div", { class: "pp-stage" }, parts.view, parts.zoom);
  parts.root = make("div", { class: "pratipad", "data-lm-suppress-shortcuts": "true" }, parts.top, parts.alert, parts.stage, parts.live);
  parts.buttons = {};
  for (const [action, [label, title]] of Object.entries(CONTROLS)) {
    const button = make("button", { type: "button", class: `pp-button pp-${action}`, title }, label);
    button.addEventListener("click", () => { button.disabled = true; button.dataset.sent = "true"; send({ do: action }); });
    parts.buttons[action] = button;
  }
  return parts;
}

/** Return whether the page behind `el` is dark, by its colour, which works in every front end. */
function onDark(el) {
  for (let at = el; at; at = at.parentElement) {
    const [r, g, b, alpha = 1] = (getComputedStyle(at).backgroundColor.match(/[\d.]+/g) ?? []).map(Number);
    if (alpha > 0.5) return 0.299 * r + 0.587 * g + 0.114 * b < 128;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

// ---- the widget -------------------------------------------------------------------------------------------

class Picture {
  constructor(model, el) {
    this.model = model;
    const send = (message) => model.send(message);
    this.parts = skeleton(send);
    this.inspector = new Inspector(model, () => this.shut());
    this.settings = new Settings(send);
    this.parts.stage.before(this.settings.root);
    this.parts.stage.after(this.inspector.root);
    el.append(this.parts.root);
    this.camera = camera(this.parts);
    this.history = new Map();
    this.cards = new Map();
    this.edges = [];
    this.open = null;
    this.width = 0;
    this.visible = true;
    // A restored picture must not claim that the flow runs: only a fresh time, or new numbers, say so.
    const age = Math.abs(Date.now() / 1000 - (this.numbers.time ?? 0)) * 1000;
    this.heard = age < SILENCE ? performance.now() : -SILENCE * 2;
    this.remember(model.get("history"));
    this.listen();
    this.theme();
    this.build();
  }

  get numbers() { return this.model.get("numbers"); }
  get structure() { return this.model.get("structure"); }

  listen() {
    const { view } = this.parts;
    this.off = [];
    const on = (what, act) => { this.model.on(what, act); this.off.push(() => this.model.off(what, act)); };
    on("change:numbers", () => { this.heard = performance.now(); this.sample(); this.update(); });
    on("change:structure", () => this.build());
    on("change:history", () => this.remember(this.model.get("history")));
    // The observer is also called before the first frame is painted: only then is there a page behind the
    // picture, light or dark.
    const resized = new ResizeObserver(() => {
      this.theme();
      if (Math.abs(view.clientWidth - this.width) > 4) this.build();
    });
    resized.observe(this.parts.stage);
    const seen = new IntersectionObserver((entries) => { this.visible = entries.at(-1).isIntersecting; this.update(); });
    seen.observe(this.parts.root);
    const themed = new MutationObserver(() => this.theme());
    themed.observe(document.body, { attributes: true });
    themed.observe(document.documentElement, { attributes: true });
    const shown = () => this.update();
    document.addEventListener("visibilitychange", shown);
    // The theme too, since a front end's style sheet may arrive without an event (Notebook 7's does).
    const clock = setInterval(() => { this.theme(); this.state(); }, 1000);
    view.addEventListener("click", (e) => { const g = e.target.closest(".pp-node"); if (g) this.toggle(g.dataset.key); });
    this.parts.root.addEventListener("keydown", (e) => this.key(e));
    this.off.push(() => resized.disconnect(), () => seen.disconnect(), () => themed.disconnect(),
      () => document.removeEventListener("visibilitychange", shown), () => clearInterval(clock));
  }

  close() {
    for (const off of this.off) off();
    this.inspector.close();
  }

  theme() {
    this.parts.root.classList.toggle("pp-dark", onDark(this.parts.root.parentElement));
  }

  remember(history) {
    for (const [key, values] of Object.entries(history?.rates ?? {})) {
      if ((this.history.get(key)?.length ?? 0) < values.length) this.history.set(key, [...values]);
    }
  }

  /** Keep a rate a second for the sparklines. */
  sample() {
    const n = this.numbers;
    const second = Math.floor(n.time);
    if (second === this.second) return;
    this.second = second;
    const keep = (key, value) => {
      const values = this.history.get(key) ?? [];
      values.push(value);
      if (values.length > MINUTE) values.shift();
      this.history.set(key, values);
    };
    for (const [key, p] of Object.entries(n.processors)) keep(key, p[1]);
    keep("Output", n.rate);
  }

  /** Draw all still parts: when the notation, the width or the number of listed devices changes. */
  build() {
    const { structure, parts } = this;
    if (!structure.nodes) return;
    this.width = parts.stage.clientWidth || 800;
    this.listed = this.numbers.devices?.shown.length ?? 0;
    const map = fitted(structure, this.width, this.listed);
    say(parts.name, structure.name);
    mark(parts.notation, "title", structure.notation);
    parts.notation.replaceChildren(...notationParts(structure.notation.replace(/\s+/g, " ")));
    parts.controls.replaceChildren(...structure.controls.map((action) => parts.buttons[action]).filter(Boolean));
    mark(parts.view, "aria-label", `The dataflow ${structure.name}: ${structure.notation}`);
    const focused = this.parts.view.querySelector(":focus")?.dataset.key;
    this.edges = structure.edges.map((edge) => drawEdge(edge, map.places));
    this.cards = new Map(structure.nodes.map((node) => [node.key, CARDS[node.kind](node, map.places.get(node.key))]));
    parts.scene.replaceChildren(...map.bands.map(drawBand), ...this.edges.map((e) => e.g), ...[...this.cards.values()].map((c) => c.g));
    mark(this.cards.get(focused ?? structure.nodes[0].key)?.g ?? parts.view, "tabindex", "0");
    if (focused) this.cards.get(focused)?.g.focus({ preventScroll: true });
    if (this.open && !this.cards.has(this.open)) this.open = null;
    this.camera.show(map);
    this.update();
  }

  update() {
    const n = this.numbers;
    this.state();
    if (!n.processors || !this.visible || document.hidden) return;
    if (n.devices.shown.length !== this.listed) return void this.build();
    for (const [key, card] of this.cards) card.update(n, n.state, this.history.get(key) ?? []);
    const busiest = this.edges.map((e) => [e, traffic(e.edge.to, n)]).sort((a, b) => b[1] - a[1]);
    busiest.forEach(([e, perSecond], i) => {
      e.update(perSecond, n.back[0]);
      mark(e.beads, "data-moving", i < MOST_MOVING && perSecond > 0 && this.alive());
    });
    this.detail();
  }

  alive() { return !ENDED.includes(this.numbers.state) && performance.now() - this.heard < SILENCE; }

  /** Update the picture's head, also when no numbers arrive: a silent flow is not shown as running. */
  state() {
    const { parts, numbers: n } = this;
    if (!n.state) return;
    const lost = !ENDED.includes(n.state) && !this.alive();
    const words = lost ? "no contact" : n.state;
    if (parts.root.dataset.state !== words) {
      parts.root.dataset.state = words;
      for (const button of Object.values(parts.buttons)) delete button.dataset.sent;
      say(parts.live, `Dataflow ${this.structure.name}: ${words}`);
    }
    say(parts.badge, words);
    const when = new Date(n.time * 1000).toLocaleTimeString();
    say(parts.meta, lost ? `last heard of at ${when}` : `${n.delivery} · ${span(n.uptime)}`);
    for (const [action, button] of Object.entries(parts.buttons)) {
      const possible = CONTROLS[action][2].includes(n.state) && !lost;
      button.disabled = !possible || button.dataset.sent === "true";
      button.hidden = action !== "stop" && !possible;
    }
    this.settings.update(this.structure.input, n, this.alive());
    if (!this.alive()) for (const e of this.edges) mark(e.beads, "data-moving", false);
    const waits = n.blocked.map((reason) => `Waiting: ${reason}`);
    const warnings = (n.warnings ?? []).map((each) => `Warning: ${each}`);
    const alerts = n.error ? [n.error] : [...waits, ...warnings];
    parts.alert.hidden = alerts.length === 0;
    mark(parts.alert, "data-kind", n.error ? "error" : "blocked");
    say(parts.alert, alerts.join("\n"));
  }

  toggle(key) {
    this.open = this.open === key ? null : key;
    this.detail();
  }

  detail() {
    const { open } = this;
    for (const [key, card] of this.cards) {
      mark(card.g, "aria-expanded", key === open);
    }
    this.inspector.show(this.structure.nodes.find((each) => each.key === open) ?? null);
    this.inspector.update(this.numbers);
  }

  /** Close the inspector and give the keyboard's focus back to its node. */
  shut() {
    const was = this.open;
    this.open = null;
    this.detail();
    if (was) this.focus(was);
  }

  /** Arrow keys go from node to node, Enter opens a node, Escape closes it; plus, minus and 0 zoom. */
  key(e) {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    const g = e.target.closest?.(".pp-node");
    const act = { "+": () => this.camera.zoom(1.25), "-": () => this.camera.zoom(0.8), 0: () => this.camera.fit(),
      Escape: () => this.shut() };
    if (g) {
      const order = this.structure.nodes.slice().sort((a, b) => a.layer - b.layer || a.row - b.row).map((node) => node.key);
      const go = (by) => this.focus(order[(order.indexOf(g.dataset.key) + by + order.length) % order.length]);
      Object.assign(act, { Enter: () => this.toggle(g.dataset.key), " ": () => this.toggle(g.dataset.key),
        ArrowRight: () => go(1), ArrowDown: () => go(1), ArrowLeft: () => go(-1), ArrowUp: () => go(-1) });
    }
    // Keys typed into a field belong to the field, and Enter on a button to the button.
    if (!act[e.key] || (e.key !== "Escape" && e.target.closest?.("button, input, select, summary"))) return;
    act[e.key]();
    e.preventDefault();
    e.stopPropagation();
  }

  focus(key) {
    for (const [each, card] of this.cards) mark(card.g, "tabindex", each === key ? "0" : "-1");
    this.cards.get(key).g.focus();
  }
}

function drawBand(band) {
  const g = svg("g", { class: `pp-band pp-band-${band.kind}` });
  g.append(svg("rect", { x: band.left, y: band.top, width: band.right - band.left, height: band.height, rx: 12 }));
  if (!band.again) g.append(text(band.left + 14, band.top + 17, "pp-layer", LAYERS[band.kind]));
  return g;
}

export default {
  render({ model, el }) {
    const picture = new Picture(model, el);
    return () => picture.close();
  },
};
