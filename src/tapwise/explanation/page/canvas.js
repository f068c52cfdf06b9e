// The few shapes that figures are made of, laid out by layout.json.

const SVG = "http://www.w3.org/2000/svg";
let drawings = 0;

export function element(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export class Canvas {
  constructor(layout, width) {
    this.layout = layout;
    this.width = width;
    // A phone has no room beside a row for its name: it stands above.
    this.isCompact = width < 560;
    this.margin = this.isCompact ? 6 : layout.margin;
    this.label = this.isCompact ? 10 : layout.label + 16;
    this.head = this.isCompact ? 17 : 0;
    this.height = this.margin;
    drawings += 1;
    this.hatch = `tw-hatch-${drawings}`;
    this.parts = [];
    this.names = []; // of rows, above all else: lines pass behind them
  }

  add(node) {
    this.parts.push(node);
    return node;
  }

  // What `draw` adds becomes the content of a group, in place of what was in it.
  into(group, draw) {
    const outside = this.parts;
    this.parts = [];
    draw();
    group.replaceChildren(...this.parts);
    this.parts = outside;
  }

  // What belongs to a step: what slides from one to the next, and what doesn't.
  stepLayers() {
    const layers = { moving: element("g"), still: element("g") };
    this.add(element("g", { class: "step" }, layers.moving, layers.still));
    return layers;
  }

  // The name of a row of cells that begins at y; returns where its cells begin.
  // At the end of the row, where an arrow comes to its cells from above.
  name(y, content, atEnd = false) {
    this.names.push(this.nameNode(y, content, atEnd));
    return y + this.head;
  }

  // The same within a group that is drawn anew.
  movingName(y, content) {
    this.add(this.nameNode(y, content));
    return y + this.head;
  }

  nameNode(y, content, atEnd = false) {
    const [at, kind] = this.isCompact ? [y + 10, "note name"] : [y + 21, "name"];
    const [x, anchor] = this.isCompact && atEnd ? [this.width - this.margin - 14, "end"] : [this.margin, "start"];
    const node = element("text", { x, y: at, class: kind, "text-anchor": anchor });
    node.textContent = content;
    return node;
  }

  path(points, kind, data = undefined) {
    const d = points.map(([x, y], n) => `${n ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
    return this.add(element("path", { d, class: kind, "data-link": data, fill: "none" }));
  }

  // A dimension line from x1 to x2 under its text: where a symbol of the length formula is in the picture.
  // An end that lies outside the picture has no stroke across it.
  mark(symbol, [x1, x2, open = [false, false]], y, content, kind = "") {
    const group = element("g", { class: `mark ${kind}`, "data-symbol": symbol });
    const across = (x, isOpen) => (isOpen ? "" : `M${x} ${y - 4}V${y + 4}`);
    const ends = `M${x1} ${y}H${x2}${across(x1, open[0])}${across(x2, open[1])}`;
    const half = 3.2 * content.length;
    const middle = Math.max(this.margin + half, Math.min(this.width - this.margin - half, (x1 + x2) / 2));
    const text = element("text", {
      x: middle.toFixed(1),
      y: (y - 6).toFixed(1),
      class: "index",
      "text-anchor": "middle",
    });
    text.textContent = content;
    group.append(element("path", { d: ends, class: "dimension", fill: "none" }), text);
    return this.add(group);
  }

  text(x, y, content, kind = "", anchor = "middle") {
    const node = element("text", { x: x.toFixed(1), y: y.toFixed(1), class: kind, "text-anchor": anchor });
    node.textContent = content;
    return this.add(node);
  }

  line(x1, y1, x2, y2, kind = "link", data = undefined) {
    return this.add(
      element("line", {
        x1: x1.toFixed(1),
        y1: y1.toFixed(1),
        x2: x2.toFixed(1),
        y2: y2.toFixed(1),
        class: kind,
        "data-link": data,
      }),
    );
  }

  // A cell with a number in it; with a key, one that can be pointed at, focused and activated.
  cell(x, y, width, kind, content, label, key) {
    const height = this.layout.row;
    const rect = element("rect", {
      x: (x + 1).toFixed(1),
      y: y.toFixed(1),
      width: Math.max(width - 2, 1).toFixed(1),
      height,
      rx: 3,
      class: kind,
    });
    if (kind === "pad") rect.style.fill = `url(#${this.hatch})`;
    const group = element(
      "g",
      key ? { "data-key": key, role: "button", tabindex: "-1", "aria-label": label } : {},
      rect,
    );
    if (label) {
      const title = element("title");
      title.textContent = label;
      group.append(title);
    }
    if (content !== "") {
      const text = element("text", {
        x: (x + width / 2).toFixed(1),
        y: (y + height / 2 + 5).toFixed(1),
        class: "number",
        "text-anchor": "middle",
      });
      if (content.length * 8.9 > width - 6) {
        text.setAttribute("textLength", (width - 6).toFixed(1));
        text.setAttribute("lengthAdjust", "spacingAndGlyphs");
      }
      text.textContent = content.replaceAll("-", "−");
      group.append(text);
    }
    return this.add(group);
  }

  svg(label) {
    const pattern = element(
      "pattern",
      { id: this.hatch, width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
      element("line", { class: "hatch", x1: 0, y1: 0, x2: 0, y2: 6 }),
    );
    return element(
      "svg",
      {
        class: "tw",
        xmlns: SVG,
        viewBox: `0 0 ${this.width} ${Math.ceil(this.height)}`,
        width: this.width,
        height: Math.ceil(this.height),
        role: "group",
        "aria-label": label,
      },
      element("defs", {}, pattern),
      element("rect", { class: "page", width: "100%", height: "100%" }),
      ...this.parts,
      ...this.names,
    );
  }
}
