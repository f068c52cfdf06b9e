// The page as a notebook's widget, in the form that anywidget takes.
import { Page } from "./page.js";
import { encoded } from "./state.js";

// A state as Python gets it.
const sent = (state) => ({
  ...state,
  x: encoded(state.x),
  weight: encoded(state.weight),
  bias: encoded(state.bias),
});

export default {
  render({ model, el }) {
    const root = document.createElement("div");
    el.append(root);
    const page = new Page(root, model.get("state"), {
      changed: (one) => {
        model.set("state", sent(one.state));
        model.save_changes();
      },
    });
    model.on("change:state", () => {
      const wanted = model.get("state");
      if (JSON.stringify(wanted) !== JSON.stringify(sent(page.state))) page.set(wanted);
    });
    return () => page.leave();
  },
};
