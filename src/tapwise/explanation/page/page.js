// The page: its state, the panels around it, and the hosts it lives in. CSS and LAYOUT come from the build.
import { Convolution, Refusal } from "./convolution.js";
import { buildChannels, showChannels } from "./channels_panel.js";
import { CONTROLS, button, buildControls, isDisabled, otherChanges, settingsOf, showControls } from "./controls.js";
import { node } from "./dom.js";
import { showShapes } from "./formula.js";
import { buildGradient, gradientsOf, showGradient } from "./gradient_panel.js";
import { listen, pressTabKey } from "./keyboard.js";
import { buildLesson, hides, hidesLength, hidesWords, showLesson, visit } from "./lesson.js";
import { listenToKeys, present } from "./lecture.js";
import { showCode, showPlan, showResponse, showStack } from "./panels.js";
import { NUMBERS, TABS, TUTORIAL, changed, copy, fromHash } from "./state.js";
import { buildSteps, play, showSteps } from "./steps_panel.js";
import { phrase } from "./words.js";

const LABELS = {
  window: "Steps",
  channels: "Channels",
  gradient: "Gradient",
  stack: "Stack",
  response: "Response",
  code: "Code",
  plan: "Why this algorithm",
};

const SHOW = {
  window: showSteps,
  channels: showChannels,
  gradient: showGradient,
  stack: showStack,
  response: showResponse,
  code: showCode,
  plan: showPlan,
};

let pages = 0;

export class Page {
  constructor(root, initial, host) {
    pages += 1;
    this.id = `tapwise-alarm-${pages}`; // several widgets may share a document
    this.root = root;
    this.host = host;
    this.lit = null;
    this.timer = null;
    this.preview = null; // the step that is pointed at, in place of the state's
    this.waiting = new Map(); // controls whose value was refused: {value, message}
    this.state = changed(TUTORIAL, {});
    try {
      this.state = changed(this.state, initial || {});
    } catch (error) {
      this.trouble = error.message;
    }
    this.begin = copy(this.state);
    this.build();
    this.compute();
  }

  // Values that were refused are given up with it, unless the change is none of a setting.
  set(partial, keepsWaiting = false) {
    this.state = changed(this.state, partial);
    this.trouble = "";
    this.news = "";
    this.preview = null;
    this.pointed = null;
    if (!keepsWaiting) this.waiting.clear();
    this.hand.replaceChildren();
    this.compute();
    if (this.host.changed) this.host.changed(this);
  }

  // What a press asks for: refused in words, never half done.
  attempt(make) {
    try {
      this.set(make(), true);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.say(error.message);
    }
  }

  // What a control asks for. A value that doesn't fit stays in its field, beside a picture of the settings before; it
  // is tried again after the next change. What changes besides is said.
  change(name, value) {
    this.waiting.delete(name);
    const before = settingsOf(this);
    const taken = [];
    let refused = "";
    for (const [other, wanted] of [[name, value], ...[...this.waiting].map(([key, waits]) => [key, waits.value])]) {
      if (isDisabled(this.state, other)) continue;
      try {
        this.state = changed(this.state, CONTROLS[other].change(this, wanted));
        this.waiting.delete(other);
        this.compute();
        taken.push(other);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        // A box can't show a tick that isn't taken: it springs back, and says why.
        if (CONTROLS[other].kind === "check") refused = error.message;
        else this.waiting.set(other, { value: wanted, message: error.message });
      }
    }
    const also = taken.length ? otherChanges(before, settingsOf(this), name) : [];
    this.news = also.length ? phrase("also_changed", { changes: also.join(", ") }) : "";
    this.trouble = refused;
    this.preview = null;
    this.pointed = null;
    this.hand.replaceChildren();
    this.show();
    // What can't be set any more isn't waited for.
    for (const other of [...this.waiting.keys()]) if (this.controls[other].input.disabled) this.waiting.delete(other);
    this.showRefused();
    if (taken.length && this.host.changed) this.host.changed(this);
  }

  // Back to how the page, or the station of the lesson, began.
  reset() {
    if (this.state.lesson === null) this.restart({ ...this.begin, lesson: null });
    else visit(this, this.state.lesson);
  }

  // Whether an output's number is what the lesson asks for.
  hides(channel, output) {
    return hides(this, channel, output);
  }

  // A whole state in place of this one.
  restart(state) {
    this.waiting.clear();
    this.attempt(() => copy(state));
  }

  // Words that stay until the next change.
  say(text) {
    this.trouble = text;
    this.showRefused();
  }

  // What was typed and doesn't fit, and what the picture shows meanwhile.
  showRefused() {
    const words = [...this.waiting].map(([name, { message }]) => {
      const { label, get } = CONTROLS[name];
      const typed = this.waiting.get(name).value;
      return phrase("refused", { message, label, typed, value: get(this) });
    });
    this.alarm.textContent = [this.trouble, ...words].filter(Boolean).join(" ");
    this.root.classList.toggle("stale", this.waiting.size > 0);
    this.note.textContent = this.news || "";
    for (const [name, { input }] of Object.entries(this.controls))
      if (this.waiting.has(name)) input.setAttribute("aria-describedby", this.id);
      else input.removeAttribute("aria-describedby");
  }

  // The step that is shown: the one that is pointed at, else the state's.
  get step() {
    return this.preview || { channel: this.state.channel, output: this.state.output };
  }

  compute() {
    const old = this.convolution;
    if (!old || NUMBERS.some((name) => old.state[name] !== this.state[name])) {
      this.convolution = new Convolution(this.state);
      this.envelopes = {};
    }
    const c = this.convolution;
    this.state.channel = Math.min(this.state.channel, c.channels - 1);
    this.state.output = Math.min(this.state.output, c.outputs - 1);
    this.show();
  }

  // The control of a symbol of the formula.
  openControl(symbol) {
    const found = Object.values(CONTROLS).find((row) => row.symbol === symbol);
    if (!found) return;
    if (this.more.contains(this.controls[found.name].input)) this.more.open = true;
    this.controls[found.name].input.focus();
  }

  // A symbol that is pointed at is marked wherever it is: in the formula, at its control and in the figure.
  markSymbol(symbol) {
    for (const one of this.root.querySelectorAll("[data-symbol]"))
      one.classList.toggle("marked", symbol !== null && one.dataset.symbol === symbol);
  }

  build() {
    const panel = buildControls(this);
    this.title = node("h1");
    this.about = node("p", { class: "sub" });
    this.alarm = node("div", { class: "alarm", role: "alert", id: this.id });
    this.note = node("div", { class: "news", role: "status" });
    this.shapes = node("p", { class: "shapes", "aria-label": "Shapes" });
    this.hand = node("div", { class: "hand" });
    this.tabs = {};
    this.panels = {};
    const list = node("div", {
      role: "tablist",
      "aria-label": "Views",
      onkeydown: (event) => pressTabKey(this, event),
    });
    for (const name of TABS) {
      this.tabs[name] = node(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${name}`,
          "aria-controls": `panel-${name}`,
          "data-control": `tab-${name}`,
          onclick: () => this.attempt(() => ({ tab: name })),
        },
        LABELS[name],
      );
      this.panels[name] = node("section", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}` });
      list.append(this.tabs[name]);
    }
    buildSteps(this);
    buildChannels(this);
    buildGradient(this);
    listen(this);
    this.root.classList.add("twp");
    const lesson = buildLesson(this);
    this.lessonEntry = button("Lesson", () => visit(this, this.lastStation || 0), "lesson");
    this.header = node("header", { class: "bar" }, this.title, this.lessonEntry);
    this.presenting = button("Present", () => present(this), "present");
    this.unlisten = listenToKeys(this);
    this.root.replaceChildren(
      node("style", {}, CSS),
      this.header,
      this.about,
      lesson,
      panel,
      this.alarm,
      this.note,
      this.hand,
      this.shapes,
      node("main", { class: "main" }, list, ...Object.values(this.panels)),
    );
    for (const [begin, end] of [
      ["pointerover", "pointerout"],
      ["focusin", "focusout"],
    ]) {
      this.root.addEventListener(begin, (event) => {
        const found = event.target.closest("[data-symbol]");
        if (found) this.markSymbol(found.dataset.symbol);
      });
      this.root.addEventListener(end, (event) => {
        if (event.target.closest("[data-symbol]")) this.markSymbol(null);
      });
    }
    this.observer = new ResizeObserver(() => {
      if (this.root.clientWidth === this.shownWidth || this.holder.querySelector("input.cell")) return;
      this.shownWidth = this.root.clientWidth;
      this.redraw();
    });
    this.observer.observe(this.root);
    this.root.addEventListener("focusin", (event) => {
      if (this.timer && event.target.matches("input:not([type=range]), select, textarea")) play(this);
    });
  }

  // The same numbers once more, at another width or step: what is being typed stays.
  redraw() {
    this.redrawing = true;
    try {
      this.show();
    } finally {
      this.redrawing = false;
    }
  }

  width() {
    return Math.max(280, Math.min(1100, this.panels[this.state.tab].clientWidth || 780));
  }

  show() {
    const { state, convolution: c } = this;
    this.title.textContent = state.title;
    this.about.textContent = state.about || (state.lesson === null ? phrase("about") : "");
    showLesson(this);
    showControls(this);
    this.showRefused();
    this.lengthIsAsked = hidesLength(this);
    this.wordsAreAsked = hidesWords(this);
    showShapes(this, c);
    for (const name of TABS) {
      const on = name === state.tab;
      this.tabs[name].setAttribute("aria-selected", String(on));
      if (on && this.shownTab !== name) this.tabs[name].scrollIntoView({ block: "nearest", inline: "center" });
      this.tabs[name].tabIndex = on ? 0 : -1;
      this.tabs[name].hidden = name === "plan" && !state.plan;
      this.panels[name].hidden = !on;
    }
    this.shownTab = state.tab;
    SHOW[state.tab](this, c);
  }

  // No step and no key any more.
  leave() {
    if (this.timer) play(this);
    this.observer.disconnect();
    this.unlisten();
  }

  // What anything outside can drive and check.
  api() {
    return {
      state: () => copy(this.state),
      set: (partial) => this.set(partial),
      output: () => this.convolution.output(),
      gradients: (all = false) => gradientsOf(this, all).all(),
      lit: () => [...(this.lit || [])],
    };
  }
}

// Whole-page host: the state lies in the document, or in the address after a #.
export function open(root) {
  const data = document.getElementById("tapwise-state");
  const page = new Page(root, data ? JSON.parse(data.textContent) : {}, {});
  const follow = () => {
    if (!location.hash) return;
    try {
      const found = fromHash(location.hash);
      if (found) page.set(found);
    } catch (error) {
      page.say(`The link can't be read: ${error.message}`);
    }
  };
  window.addEventListener("hashchange", follow);
  follow();
  window.tapwise = page.api();
}
