// The page of a network: its operations in a column, what the pointed output reads of each, and each convolution's own
// page, one press away.
import { element } from "./canvas.js";
import { button } from "./controls.js";
import { node } from "./dom.js";
import { Page } from "./page.js";
import { phrase } from "./words.js";

const LANE = 9;

// What [low, high] of an operation's outputs read of what it reads, positions in the padding counted.
export function readBy(time, [low, high]) {
  if (time.kind === "windows") {
    const { stride, left, effective_kernel_size: effective } = time;
    if (!time.transposed) return [low * stride - left, high * stride - left + effective - 1];
    return [Math.ceil((low + left - effective + 1) / stride), Math.floor((high + left) / stride)];
  }
  if (time.kind === "ends") return [low - time.left, high - time.left];
  return time.kind === "aligned" ? [low, high] : [0, high];
}

// The samples that stand at [low, high] of a signal and its padding; null where there are none.
export function samplesAt([low, high], length, mode) {
  const inside = [Math.max(0, low), Math.min(length - 1, high)];
  const found = inside[0] <= inside[1] ? [inside] : [];
  const take = (a, b) => a <= b && found.push([Math.max(0, a), Math.min(length - 1, b)]);
  const [before, after] = [low < 0, high >= length];
  if (mode === "replicate") {
    if (before) take(0, 0);
    if (after) take(length - 1, length - 1);
  } else if (mode === "reflect") {
    if (before) take(-Math.min(high, -1), -low);
    if (after) take(2 * (length - 1) - high, 2 * (length - 1) - Math.max(low, length));
  } else if (mode === "circular") {
    if (before) take(low + length, Math.min(high, -1) + length);
    if (after) take(Math.max(low, length) - length, high - length);
  }
  return found.length ? [Math.min(...found.map(([a]) => a)), Math.max(...found.map(([, b]) => b))] : null;
}

// By node: the first and the last of its samples that output `at` of a node reads; null where it reads none.
export function reach(nodes, number, at) {
  const found = nodes.map(() => null);
  found[number] = [at, at];
  for (let n = number; n >= 0; n -= 1) {
    if (found[n] === null) continue;
    const { time, inputs } = nodes[n];
    const interval = readBy(time, found[n]);
    for (const source of inputs) {
      const read = samplesAt(interval, nodes[source].length, time.padding_mode);
      const old = found[source];
      if (read) found[source] = old ? [Math.min(old[0], read[0]), Math.max(old[1], read[1])] : read;
    }
  }
  return found;
}

// Lanes for what skips operations: {from, to, lane}, none over another in the same lane.
function skips(nodes) {
  const taken = [];
  const found = [];
  nodes.forEach((one, to) => {
    for (const from of one.inputs) {
      if (from === to - 1) continue;
      let lane = 0;
      while (taken[lane] !== undefined && taken[lane] >= from) lane += 1;
      taken[lane] = to;
      found.push({ from, to, lane });
    }
  });
  return found;
}

export class NetworkView {
  constructor(root, network) {
    this.network = network;
    this.root = root;
    root.classList.add("twp");
    this.chosen = { number: network.results[0], at: 0 };
    this.build();
    const { length } = network.nodes[this.chosen.number];
    this.go(Math.floor(length / 2));
  }

  build() {
    const { network } = this;
    this.overview = node("div", { class: "network" });
    this.detail = node("div", { hidden: true });
    const facts = network.facts.map(([name, value]) => node("div", {}, node("dt", {}, name), node("dd", {}, value)));
    this.words = node("p", { class: "sentence", "aria-live": "polite" });
    const last = network.nodes[network.results[0]];
    this.slider = node("input", {
      type: "range",
      min: 0,
      max: Math.max(0, last.length - 1),
      "aria-label": phrase("network_slider"),
      "data-control": "sample",
      oninput: () => this.go(Number(this.slider.value)),
    });
    this.rows = network.nodes.map((one, number) => this.row(one, number));
    this.table = node(
      "div",
      { class: "operations", role: "list", "aria-label": phrase("network_operations") },
      this.head(),
      ...this.rows.map(({ row }) => row),
    );
    this.overview.append(
      node("h1", {}, network.title),
      node("p", { class: "sub" }, phrase("network_about", { n: network.nodes.length })),
      node("dl", { class: "facts" }, ...facts),
      node("div", { class: "bar" }, node("span", {}, phrase("network_slider")), this.slider),
      this.words,
      this.table,
    );
    this.root.replaceChildren(node("style", {}, CSS), this.overview, this.detail);
    this.drawEdges();
    this.observer = new ResizeObserver(() => this.drawEdges());
    this.observer.observe(this.table);
  }

  // The names of the columns, and the samples of the signal between which the strips stand.
  head() {
    this.from = node("span", {});
    this.until = node("span", {});
    const words = ["operation", "shape", "reads_of_signal", "read_now"].map((name) =>
      node("span", {}, phrase(`network_${name}`)),
    );
    return node(
      "div",
      { class: "operation head" },
      node("span", {}),
      ...words,
      node("span", { class: "scale" }, this.from, this.until),
    );
  }

  // An output of the network; the strips show the samples around it.
  go(at) {
    const { network } = this;
    const number = network.results[0];
    const now = this.moment(number, at);
    // As far as any operation reads that doesn't read all of the past.
    const far = network.nodes.map(({ reads: [earliest, latest] }) => Math.max(-(earliest ?? 0), latest));
    const wide = Math.max(8, Math.ceil(1.25 * Math.max(...far)));
    this.view = [Math.max(0, now - wide), Math.min(network.length, now + wide + 1)];
    if (this.view[1] - this.view[0] > 0.8 * network.length) this.view = [0, network.length];
    const spelled = (n) => n.toLocaleString("en");
    this.from.textContent = phrase("network_sample", { n: spelled(this.view[0]) });
    this.until.textContent = spelled(this.view[1] - 1);
    this.slider.value = at;
    this.point(number, at);
  }

  // The sample of the signal that a sample of an operation belongs to.
  moment(number, at) {
    const [numerator, denominator] = this.network.nodes[number].rate;
    return Math.floor((at * denominator) / numerator);
  }

  row(one, number) {
    const { network } = this;
    // A layer that is called again has one page: of its first call.
    const isFirst = network.nodes.findIndex((other) => other.convolves && other.path === one.path) === number;
    const layer = one.convolves && isFirst ? network.layers[one.path] : undefined;
    const rate = one.rate[1] === 1 ? `${one.rate[0]}` : `${one.rate[0]}/${one.rate[1]}`;
    const [earliest, latest] = one.reads;
    const sign = (n) => (n === null ? "−∞" : n > 0 ? `+${n}` : `${n}`);
    const name = layer
      ? button(one.name, () => this.open(one.path), `open-${number}`)
      : node("span", { class: "plain" }, one.name);
    const again = one.convolves && !isFirst ? node("small", {}, phrase("network_again")) : "";
    const leak = one.leak
      ? node("span", { class: "ahead", title: phrase("network_leak", { n: one.leak }) }, `▸ ${one.leak} ahead`)
      : "";
    const past = element("rect", { y: 4, height: 14, rx: 2, class: "input" });
    const future = element("rect", { y: 4, height: 14, rx: 2, class: "leak" });
    const now = element("line", { y1: 1, y2: 21, class: "link strong" });
    const strip = element(
      "svg",
      { class: "tw strip", preserveAspectRatio: "none", viewBox: "0 0 1000 22", "aria-hidden": "true" },
      past,
      future,
      now,
    );
    const count = node("span", { class: "count" });
    const row = node(
      "div",
      { class: `operation${one.convolves ? " convolves" : ""}`, role: "listitem", "data-node": number },
      node("span", { class: "lanes" }),
      node("span", { class: "name" }, name, node("small", {}, one.path || (number ? network.title : "")), again, leak),
      node(
        "span",
        { class: "size" },
        `(${one.shape.join(", ")})`,
        node("small", {}, rate === "1" ? "" : phrase("network_rate", { rate })),
      ),
      node(
        "span",
        { class: "moment" },
        number ? phrase("network_reads", { first: sign(earliest), last: sign(latest) }) : "",
      ),
      count,
      strip,
    );
    const point = (event) => {
      const box = strip.getBoundingClientRect();
      const share = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
      const sample = this.view[0] + share * (this.view[1] - this.view[0]);
      this.point(number, Math.max(0, Math.min(one.length - 1, Math.floor((sample * one.rate[0]) / one.rate[1]))));
    };
    strip.addEventListener("pointermove", point);
    strip.addEventListener("pointerdown", point);
    return { row, past, future, now, count };
  }

  // What output `at` of an operation reads of every one before it.
  point(number, at) {
    const { network } = this;
    this.chosen = { number, at };
    const found = reach(network.nodes, number, at);
    const exact = (n, p) => (p * network.nodes[n].rate[1]) / network.nodes[n].rate[0];
    const now = this.moment(number, at);
    const [from, until] = this.view;
    const place = (time) => (1000 * (Math.max(from, Math.min(until, time)) - from)) / (until - from);
    network.nodes.forEach((one, n) => {
      const { row, past, future, now: line, count } = this.rows[n];
      const interval = found[n];
      row.classList.toggle("unread", interval === null);
      line.setAttribute("x1", place(now + 0.5));
      line.setAttribute("x2", place(now + 0.5));
      if (interval === null) {
        past.setAttribute("width", 0);
        future.setAttribute("width", 0);
        count.textContent = "";
        return;
      }
      const [low, high] = interval;
      const [begin, end] = [exact(n, low), exact(n, high + 1)];
      // Samples of an operation that belong to a later moment lie in the future.
      const later = Math.floor(((now + 1) * one.rate[0] - 1) / one.rate[1]) + 1;
      const cut = Math.max(begin, Math.min(end, exact(n, later)));
      past.setAttribute("x", place(begin));
      past.setAttribute("width", Math.max(place(cut) - place(begin), cut > begin ? 2 : 0));
      future.setAttribute("x", place(cut));
      future.setAttribute("width", Math.max(place(end) - place(cut), 0));
      count.textContent = phrase("network_count", { n: high - low + 1 });
    });
    this.words.textContent = this.spoken(found, number, at, now);
    this.found = found;
  }

  // What is read of the signal in words; of several signals, by the first one's time.
  spoken(found, number, at, now) {
    const { network } = this;
    const { name: called, path } = network.nodes[number];
    const name = path ? `${called} in ${path}` : called;
    const sources = network.nodes.flatMap((one, n) => (one.inputs.length || found[n] === null ? [] : [n]));
    if (!sources.length) return phrase("network_words_none", { name, at, now });
    const first = Math.min(...sources.map((n) => this.moment(n, found[n][0])));
    const last = Math.max(...sources.map((n) => this.moment(n, found[n][1])));
    const ahead = Math.max(0, last - Math.max(now, first - 1));
    return phrase(ahead ? "network_words_ahead" : "network_words", { first, last, name, at, now, ahead });
  }

  // From each operation to the next, and arcs to those that skip some.
  drawEdges() {
    if (!this.table.offsetHeight || this.drawnWidth === this.table.offsetWidth) return;
    this.drawnWidth = this.table.offsetWidth;
    const arcs = skips(this.network.nodes);
    const lanes = Math.min(5, Math.max(0, ...arcs.map(({ lane }) => lane + 1)));
    const width = 18 + LANE * lanes;
    this.table.style.setProperty("--lanes", `${width}px`);
    if (this.edges) this.edges.remove();
    // Where the rows are beside lanes as wide as these.
    const places = this.rows.map(({ row }) => row.offsetTop + row.offsetHeight / 2);
    const x = width - 8;
    const lines = [];
    this.network.nodes.forEach((one, to) => {
      if (one.inputs.includes(to - 1))
        lines.push(element("line", { x1: x, x2: x, y1: places[to - 1], y2: places[to], class: "link" }));
    });
    for (const { from, to, lane } of arcs) {
      const out = x - LANE * (1 + (lane % 5));
      const d = `M${x} ${places[from]}C${out} ${places[from]} ${out} ${places[from]} ${out} ${places[from] + 10}V${places[to] - 10}C${out} ${places[to]} ${out} ${places[to]} ${x} ${places[to]}`;
      lines.push(element("path", { d, class: "link", fill: "none" }));
    }
    const dots = places.map((y, n) =>
      element("rect", {
        x: x - 4,
        y: y - 4,
        width: 8,
        height: 8,
        rx: 4,
        class: this.network.nodes[n].convolves ? "tap" : "input",
      }),
    );
    const svg = element(
      "svg",
      { class: "tw edges", width, height: this.table.offsetHeight, "aria-hidden": "true" },
      ...lines,
      ...dots,
    );
    this.edges = svg;
    this.table.append(svg);
  }

  // A convolution's own page, on the signal that reached it.
  open(path) {
    const state = this.network.layers[path];
    const back = button(phrase("network_back"), () => this.close(), "back-to-network");
    const place = node("div", {});
    this.overview.hidden = true;
    this.detail.hidden = false;
    this.detail.replaceChildren(node("div", { class: "bar" }, back), place);
    this.opened = path;
    if (state.why_not) {
      place.append(node("p", {}, state.why_not));
      this.page = null;
    } else this.page = new Page(place, state, { within: true });
    back.focus();
  }

  close() {
    const path = this.opened;
    if (this.page) this.page.leave();
    this.page = null;
    this.opened = null;
    this.detail.hidden = true;
    this.detail.replaceChildren();
    this.overview.hidden = false;
    const number = this.network.nodes.findIndex((one) => one.path === path && one.convolves);
    this.rows[number].row.querySelector("button").focus();
  }

  api() {
    return {
      network: () => structuredClone({ ...this.chosen, opened: this.opened || null }),
      point: (number, at) => this.point(number, at),
      reach: () => structuredClone(this.found),
      open: (path) => this.open(path),
      close: () => this.close(),
      state: () => this.page.api().state(),
      set: (partial) => this.page.api().set(partial),
      output: () => this.page.api().output(),
    };
  }
}

// Whole-page host, as page.js's.
export function openNetwork(root) {
  const { network } = JSON.parse(document.getElementById("tapwise-state").textContent);
  window.tapwise = new NetworkView(root, network).api();
}
