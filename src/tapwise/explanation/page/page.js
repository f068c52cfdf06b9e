// The page: its state, the panels around it, and the hosts it lives in. CSS and LAYOUT come from the build.
import { Convolution, Refusal } from "./convolution.js";
import { buildControls, showControls } from "./controls.js";
import { node } from "./dom.js";
import { listen, pressTabKey } from "./keyboard.js";
import { showChannels, showCode, showPlan, showResponse, showStack } from "./panels.js";
import { NUMBERS, TABS, TUTORIAL, changed, copy, encoded, fromHash } from "./state.js";
import { buildSteps, play, showSteps } from "./steps_panel.js";

const LABELS = {
  window: "Steps",
  channels: "Channels",
  stack: "Stack",
  response: "Response",
  code: "Code",
  plan: "Why this kernel",
};

const SHOW = {
  window: showSteps,
  channels: showChannels,
  stack: showStack,
  response: showResponse,
  code: showCode,
  plan: showPlan,
};

export class Page {
  constructor(root, initial, host) {
    this.root = root;
    this.host = host;
    this.lit = null;
    this.timer = null;
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

  set(partial) {
    this.state = changed(this.state, partial);
    this.trouble = "";
    this.hand.replaceChildren();
    this.compute();
    if (this.host.changed) this.host.changed(this);
  }

  // A change that a control asks for: refused in words, never half done.
  attempt(make, control) {
    try {
      this.set(make());
      if (control) control.removeAttribute("aria-invalid");
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.say(error.message);
      if (control) control.setAttribute("aria-invalid", "true");
    }
  }

  // Words that stay until the next change.
  say(text) {
    this.trouble = text;
    this.alarm.textContent = text;
  }

  compute() {
    const old = this.convolution;
    if (!old || NUMBERS.some((name) => old.state[name] !== this.state[name])) {
      this.convolution = new Convolution(this.state);
      this.extremes = null;
    }
    const c = this.convolution;
    this.state.channel = Math.min(this.state.channel, c.channels - 1);
    this.state.output = Math.min(this.state.output, c.outputs - 1);
    this.show();
  }

  build() {
    const panel = buildControls(this);
    this.title = node("h1");
    this.about = node("p", { class: "sub" });
    this.alarm = node("div", { class: "alarm", role: "alert" });
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
    listen(this);
    this.root.classList.add("twp");
    this.root.replaceChildren(
      node("style", {}, CSS),
      this.title,
      this.about,
      this.alarm,
      this.hand,
      node("div", { class: "body" }, panel, node("main", { class: "main" }, list, ...Object.values(this.panels))),
    );
    this.observer = new ResizeObserver(() => {
      if (this.root.clientWidth === this.shownWidth || this.holder.querySelector("input.cell")) return;
      this.shownWidth = this.root.clientWidth;
      this.redraw();
    });
    this.observer.observe(this.root);
    panel.addEventListener("focusin", () => {
      if (this.timer) play(this);
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
    return Math.max(300, Math.min(940, this.panels[this.state.tab].clientWidth || 780));
  }

  show() {
    const { state, convolution: c } = this;
    this.title.textContent = state.title;
    this.about.textContent = state.about || "Every number of a one-dimensional convolution. Change anything.";
    this.alarm.textContent = this.trouble || "";
    showControls(this);
    for (const name of TABS) {
      const on = name === state.tab;
      this.tabs[name].setAttribute("aria-selected", String(on));
      this.tabs[name].tabIndex = on ? 0 : -1;
      this.panels[name].hidden = !on;
    }
    SHOW[state.tab](this, c);
  }

  // What anything outside can drive and check.
  api() {
    return {
      state: () => copy(this.state),
      set: (partial) => this.set(partial),
      output: () => this.convolution.output(),
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

export default {
  render({ model, el }) {
    const root = document.createElement("div");
    el.append(root);
    const page = new Page(root, model.get("state"), {
      changed: (one) => {
        model.set("state", {
          ...one.state,
          x: encoded(one.state.x),
          weight: encoded(one.state.weight),
          bias: encoded(one.state.bias),
        });
        model.save_changes();
      },
    });
    model.on("change:state", () => {
      const wanted = model.get("state");
      if (JSON.stringify(wanted) !== JSON.stringify(page.state)) page.set(wanted);
    });
    return () => {
      if (page.timer) play(page);
      page.observer.disconnect();
    };
  },
};
