/* The inspector below the picture: one opened node, its messages and its actions.
 *
 * Second of the parts that `widget.py` joins into one ES module. Reads the traits `about`, `inspected`, `way`
 * and `told`, which are sent only while a node is open; `inspector.py` says their contents. All text of users
 * goes in as text, never as HTML.
 */

const RENEW = 5000; // ms after which the wish to see a node is renewed; the kernel forgets a wish after 15 s
const TYPED = 300; // ms after the last key before the filter is sent
const clock = (s) => new Date(s * 1000).toLocaleTimeString([], { hour12: false }) + (s % 1).toFixed(2).slice(1);

function labelled(words, field) { return make("label", { class: "pp-field" }, make("span", {}, words), field); }
function press(words, title, act, cls = "") {
  const button = make("button", { type: "button", class: `pp-button ${cls}`, title }, words);
  button.addEventListener("click", act);
  return button;
}

function scrolled(cls, names, body) {
  const heads = names.map((name) => make("th", { scope: "col" }, name));
  return make("div", { class: "pp-scroll" },
    make("table", { class: `pp-table ${cls}` }, make("thead", {}, make("tr", {}, ...heads)), body));
}
/** Return a row that a click, or Enter, acts on. */
function row(attrs, words, act) {
  const made = make("tr", { tabindex: "0", ...attrs }, ...words.map((each) => make("td", {}, each)));
  made.addEventListener("click", act);
  made.addEventListener("keydown", (e) => { if (e.key === "Enter") { act(); e.stopPropagation(); } });
  return made;
}
const instead = (columns, words) => make("tr", {}, make("td", { colspan: columns }, words));

class Inspector {
  constructor(model, close) {
    this.model = model;
    this.open = null;
    this.held = false;
    this.title = make("span", { class: "pp-inspect-title" });
    this.acts = make("span", { class: "pp-controls" });
    this.rows = make("dl", { class: "pp-details" });
    this.body = make("div", { class: "pp-inspect-body" });
    this.told = make("div", { class: "pp-told", role: "status" });
    this.root = make("section", { class: "pp-inspect", hidden: "" },
      make("div", { class: "pp-inspect-head" }, this.title, this.acts, press("×", "Close (Escape)", close, "pp-close")),
      this.rows, this.told, this.body);
    this.root.querySelector(".pp-close").setAttribute("aria-label", "Close the inspector");
    this.off = [];
    const on = (what, act) => { model.on(what, act); this.off.push(() => model.off(what, act)); };
    on("change:about", () => this.about());
    on("change:inspected", () => this.inspected());
    on("change:way", () => this.way());
    on("change:told", () => this.tell());
    const renew = setInterval(() => { if (this.open && !document.hidden) this.ask(); }, RENEW);
    this.off.push(() => clearInterval(renew), () => { if (this.open) model.send({ do: "inspect", key: null }); });
  }

  close() { for (const off of this.off) off(); }

  ask() {
    const key = this.held && !this.once ? null : this.open?.key ?? null;
    this.model.send({ do: "inspect", key, filter: this.filter?.value ?? "" });
  }

  /** Open `node`; null closes the inspector. */
  show(node) {
    if ((node?.key ?? null) === (this.open?.key ?? null)) return;
    this.open = node;
    this.held = this.once = false;
    this.drawn = "";
    this.root.hidden = !node;
    this.body.replaceChildren();
    this.acts.replaceChildren();
    say(this.told, "");
    this.filter = null;
    if (node) {
      const name = node.kind === "devices" ? "Devices" : node.key;
      say(this.title, name);
      mark(this.root, "aria-label", `Inspector of ${name}`);
      this[node.kind](node);
    }
    this.ask();
  }

  /** Show the open node's numbers, several times a second. */
  update(n) {
    if (!this.open) return;
    const rows = details(this.open, n);
    const drawn = JSON.stringify(rows);
    if (drawn !== this.drawn) {
      this.drawn = drawn;
      this.rows.replaceChildren(...rows.map(([term, value]) =>
        make("div", {}, make("dt", {}, term), make("dd", {}, String(value)))));
    }
    const ended = ["stopped", "failed"].includes(n.state);
    if (this.open.kind === "processor") {
      const paused = n.processors[this.open.key]?.[0] === "paused";
      say(this.pauses, `${paused ? "Resume" : "Pause"} ${this.open.key}`);
      this.pauses.dataset.do = paused ? "resume" : "pause";
      this.pauses.disabled = ended;
    }
    if (this.retry) this.retry.disabled = ended || !n.dead;
  }

  // ---- the parts of each kind of node ----

  /** Make the field for a text that messages or devices contain. */
  seek(placeholder) {
    this.filter = make("input", { type: "search", placeholder, spellcheck: "false", maxlength: "200" });
    this.filter.addEventListener("input", () => {
      clearTimeout(this.typing);
      this.once = this.held; // a held table shows the new filter's rows, and is held again
      this.typing = setTimeout(() => this.ask(), TYPED);
    });
  }

  processor(node) {
    this.pauses = press("", "Begin no further message; new messages wait before the processor",
      () => this.model.send({ do: this.pauses.dataset.do, key: node.key }));
    this.acts.append(this.pauses);
    this.seek("text, device, error");
    this.hold = press("Hold", "Let the table stand still; the flow goes on", () => {
      this.held = !this.held;
      mark(this.hold, "aria-pressed", this.held);
      this.ask();
    });
    mark(this.hold, "aria-pressed", false);
    this.table = make("tbody");
    this.path = make("div", { class: "pp-way", hidden: "" });
    this.fault = make("details", { class: "pp-fault", hidden: "" }, make("summary"), make("pre"));
    this.code = make("details", { class: "pp-source" }, make("summary", {}, "Source"), make("pre"));
    this.log = make("details", { class: "pp-log", hidden: "" }, make("summary", {}, "Log"), make("pre"));
    this.body.append(this.fault, this.code, this.log,
      make("div", { class: "pp-bar" }, make("b", {}, "Last messages"), labelled("filter", this.filter), this.hold), this.path,
      scrolled("pp-messages", ["time", "device", "in", "out"], this.table));
    this.about();
  }

  output() {
    this.pauses = null;
    this.retry = press("Retry dead letters", "Put them through the processor they failed in once more",
      () => this.model.send({ do: "retry" }));
    this.acts.append(this.retry);
    this.table = make("div", { class: "pp-letters" });
    this.body.append(this.table);
  }

  devices() {
    this.to = make("input", { type: "text", placeholder: "all devices", spellcheck: "false" });
    this.order = make("input", { type: "text", value: '{"led": "on"}', spellcheck: "false" });
    const form = make("form", { class: "pp-bar" }, make("b", {}, "Send an order"), labelled("to", this.to), labelled("JSON", this.order),
      make("button", { type: "submit", class: "pp-button" }, "Send"));
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      this.model.send({ do: "order", payload: this.order.value, to: this.to.value });
    });
    this.seek("name, error");
    this.shownOf = make("span", { class: "pp-meta" });
    this.table = make("tbody");
    this.body.append(form, make("div", { class: "pp-bar" }, make("b", {}, "Devices"), labelled("filter", this.filter), this.shownOf),
      scrolled("pp-device-list", ["device", "state", "rate", "received", "orders run", "says"], this.table));
  }

  // ---- the kernel's traits ----

  about() {
    const about = this.model.get("about");
    if (this.open?.kind !== "processor" || about.key !== this.open.key) return;
    say(this.title, this.open.key + (about.arguments ? `(${about.arguments})` : ""));
    say(this.code.lastChild, about.source || "No source can be found.");
  }

  inspected() {
    const seen = this.model.get("inspected");
    if (!this.open || seen.key !== this.open.key) return;
    if (this.held) {
      if (!this.once || seen.filter !== this.filter.value) return;
      this.once = false;
      this.ask(); // held again: the kernel sends no more
    }
    if (this.open.kind === "devices") this.devicesSeen(seen);
    if (this.open.kind === "output") this.letters(seen.letters);
    if (this.open.kind === "processor") { this.messages(seen); this.lines(seen.log); }
  }

  messages({ messages, fault }) {
    this.fault.hidden = !fault;
    if (fault) { say(this.fault.firstChild, `⚠ ${fault[0]}`); say(this.fault.lastChild, fault[1]); }
    this.list(messages.map(([id, device, time, came, went, error]) =>
      row({ "data-id": id, title: "Show its way through the flow", "data-error": error !== "" },
        [clock(time), device, came, error ? `⚠ ${error}` : went || "nothing"], () => this.model.send({ do: "way", id }))),
      this.filter.value ? "None of them contains that." : "Nothing has come in.");
  }

  /** Show the devices, or the busiest of many; a click on a device addresses the order to it. */
  devicesSeen({ devices, matching }) {
    say(this.shownOf, matching > devices.length ? `the ${devices.length} busiest of ${grouped.format(matching)}` : "");
    this.list(devices.map(([name, on, perSecond, received, [run, sent], behind, error]) =>
      row({ "data-id": name, title: "Address the order to it", "data-error": error !== "" },
        [name, on ? "● connected" : "○ away", `${rate(perSecond)} /s`, count(received), sent ? `${count(run)} of ${count(sent)}` : "–",
          error ? `⚠ ${error}` : behind ? `gateway of ${count(behind)}` : ""],
        () => { this.to.value = name; })),
      this.filter.value ? "No device's name contains that." : "None has connected yet.");
  }

  /** Show `rows`, or `none` if there are no rows; the row with the keyboard's focus keeps the focus. */
  list(rows, none) {
    const focused = this.table.querySelector("tr:focus")?.dataset.id;
    const columns = this.table.parentElement.querySelectorAll("th").length;
    this.table.replaceChildren(...(rows.length ? rows : [instead(columns, none)]));
    rows.find((each) => focused && each.dataset.id === focused)?.focus({ preventScroll: true });
  }

  /** Show the lines that the processor printed and logged; streams other than stdout are named. */
  lines(log) {
    this.log.hidden = !log.length;
    const words = log.map(([time, stream, line]) => `${clock(time)}  ${stream === "stdout" ? "" : `${stream}  `}${line}`).join("\n");
    const pre = this.log.lastChild;
    const atEnd = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 4;
    say(pre, words);
    if (atEnd) pre.scrollTop = pre.scrollHeight;
  }

  letters(letters) {
    if (JSON.stringify(letters) === this.lettered && this.table.childElementCount) return;
    this.lettered = JSON.stringify(letters);
    this.table.replaceChildren(...letters.map(([processor, payload, error, traceback]) => make("details", { class: "pp-fault" },
      make("summary", {}, `⚠ ${processor}: ${error}`), make("pre", {}, `${payload}\n\n${traceback}`))));
    if (!letters.length) say(this.table, "No dead letters.");
  }

  way() {
    const { id, device, steps } = this.model.get("way");
    if (this.open?.kind !== "processor" || !steps) return;
    this.path.hidden = false;
    this.path.replaceChildren(make("div", { class: "pp-bar" }, make("b", {}, `The way of ${id}`), device,
      press("×", "Close", () => { this.path.hidden = true; })),
      make("ol", {}, ...steps.map(([key, came, went, error]) => make("li", {}, make("b", {}, key),
        make("pre", {}, came || "–"), make("span", { "aria-label": "gave" }, "→"), make("pre", {}, error ? `⚠ ${error}` : went || "nothing")))));
  }

  tell() {
    const { text: words, fault, at } = this.model.get("told");
    if (!words || Math.abs(Date.now() / 1000 - at) > 60) return;
    say(this.told, words);
    mark(this.told, "data-fault", fault);
  }
}

// ---- sliders ----------------------------------------------------------------------------------------------

/** Return sliders for rate and demand, on a scale of tens; the end of the rate's slider is "no limit". */
class Settings {
  constructor(send) {
    this.root = make("div", { class: "pp-settings", hidden: "" });
    this.rate = this.slider("rate", 101, (v) => (v >= 101 ? null : Math.max(0.1, +(10 ** (v / 20 - 1)).toPrecision(2))),
      (v) => (v === null ? "no limit" : `${rate(v)} /s`), (value) => send({ do: "rate", value }));
    this.demand = this.slider("max. demand", 100, (v) => Math.max(1, Math.round(10 ** (v / 20))), count, (value) => send({ do: "demand", value }));
  }

  slider(words, max, meaning, spelled, act) {
    const input = make("input", { type: "range", min: 0, max, step: 1, "aria-label": words });
    const value = make("output", {});
    let waiting;
    let touched = 0;
    input.addEventListener("input", () => {
      touched = performance.now();
      say(value, spelled(meaning(+input.value)));
      mark(input, "aria-valuetext", value.textContent);
      clearTimeout(waiting);
      waiting = setTimeout(() => act(meaning(+input.value)), 100);
    });
    const field = make("label", { class: "pp-field" }, make("span", {}, words), input, value);
    this.root.append(field);
    return { field, show(now, position) {
      if (performance.now() - touched < 1500) return; // the flow's answer is on its way
      input.value = position;
      say(value, spelled(now));
      mark(input, "aria-valuetext", value.textContent);
    } };
  }

  update(input, n, live) {
    this.root.hidden = input === "Push" || !n.set || !live;
    if (this.root.hidden) return;
    const [perSecond, demand] = n.set;
    this.rate.show(perSecond, perSecond === null ? 101 : 20 * (Math.log10(perSecond) + 1));
    this.demand.field.hidden = input !== "Demand";
    this.demand.show(demand, 20 * Math.log10(demand));
  }
}
