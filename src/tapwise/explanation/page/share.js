// Taking something along: a link, code on the clipboard, a picture.
import { element } from "./canvas.js";
import { node } from "./dom.js";
import { toHash } from "./state.js";

export function link(page) {
  return location.href.split("#")[0] + toHash(page.state);
}

export function copyText(page, text) {
  page.hand.replaceChildren();
  const done = (how) => {
    page.say(how);
    setTimeout(() => {
      if (page.trouble === how) page.say("");
    }, 1800);
  };
  if (navigator.clipboard && window.isSecureContext) {
    navigator.clipboard.writeText(text).then(
      () => done("Copied."),
      () => showForCopy(page, text),
    );
  } else showForCopy(page, text);
}

// Where the clipboard is closed to a page: a field with the text in it, selected.
export function showForCopy(page, text) {
  const area = node("textarea", { rows: 4, "aria-label": "text to copy", readonly: true });
  area.value = text;
  page.hand.replaceChildren("Copy page: ", area);
  area.focus();
  area.select();
}

export function saveFigure(page, kind) {
  const svg = page.drawn.svg.cloneNode(true);
  const style = element("style");
  style.textContent = FIGURE_CSS;
  svg.prepend(style);
  const text = new XMLSerializer().serializeToString(svg);
  const give = (blob, name) => {
    const anchor = node("a", { download: name });
    anchor.href = URL.createObjectURL(blob);
    anchor.click();
    setTimeout(() => URL.revokeObjectURL(anchor.href), 5000);
  };
  if (kind === "svg") {
    give(new Blob([text], { type: "image/svg+xml" }), "convolution.svg");
    return;
  }
  const image = new Image();
  image.onload = () => {
    const canvas = node("canvas", { width: svg.getAttribute("width") * 2, height: svg.getAttribute("height") * 2 });
    const context = canvas.getContext("2d");
    context.scale(2, 2);
    context.drawImage(image, 0, 0);
    canvas.toBlob((blob) => give(blob, "convolution.png"));
  };
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
}
