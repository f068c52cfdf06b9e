// For a lecture: the whole screen, large type, and keys that step without a field or a cell being chosen.
import { move, play } from "./steps_panel.js";

// Large type, on the whole screen where the browser allows it.
export function present(page) {
  const on = !page.root.classList.contains("large");
  page.root.classList.toggle("large", on);
  page.presenting.setAttribute("aria-pressed", String(on));
  if (on) page.more.open = false;
  page.presenting.textContent = on ? "Stop presenting" : "Present";
  if (on && page.root.requestFullscreen) page.root.requestFullscreen().catch(() => {});
  else if (!on && document.fullscreenElement) document.exitFullscreen().catch(() => {});
  page.redraw();
}

const KEYS = {
  ArrowRight: (page) => move(page, 1),
  ArrowLeft: (page) => move(page, -1),
  Home: (page) => page.attempt(() => ({ output: 0 })),
  End: (page) => page.attempt(() => ({ output: page.convolution.outputs - 1 })),
  " ": play,
  p: present,
  Escape: (page) => page.root.classList.contains("large") && present(page),
};

const keyOf = ({ key }) => (key.length === 1 ? key.toLowerCase() : key);

// Returns what ends it.
export function listenToKeys(page) {
  const follow = (event) => {
    const within = (selector) => event.target.closest && event.target.closest(selector);
    const taken = within("input, select, textarea, [data-key], pre, [role=tab]");
    // A button takes the space bar, and no arrows.
    const pressed = event.key === " " && within("button, summary");
    if (taken || pressed || event.ctrlKey || event.metaKey || event.altKey || !KEYS[keyOf(event)]) return;
    event.preventDefault();
    KEYS[keyOf(event)](page);
  };
  // A page of its own takes the keys wherever the focus is; a widget, those within it.
  const place = page.host.changed ? page.root : document;
  const restore = () => {
    if (!document.fullscreenElement && page.root.classList.contains("large")) present(page);
  };
  place.addEventListener("keydown", follow);
  document.addEventListener("fullscreenchange", restore);
  return () => {
    place.removeEventListener("keydown", follow);
    document.removeEventListener("fullscreenchange", restore);
  };
}
