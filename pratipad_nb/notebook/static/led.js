// A light as the kernel describes it: `state` holds its name, whether it is lit, and its number of changes.
// Updates come at most twenty times a second; a light that went on and off between two updates flashes
// shortly.
const FLASH = 60;

export default {
  render({ model, el }) {
    const [box, light, name] = [0, 0, 0].map(() => document.createElement("span"));
    box.className = "pp-led";
    light.className = "pp-led-light";
    box.append(light, name);
    el.append(box);
    let changes = model.get("state").changes;
    let timer = 0;

    const show = (lit) => {
      light.classList.toggle("pp-led-lit", lit);
      light.setAttribute("aria-label", lit ? "lit" : "dark");
    };
    const draw = () => {
      const state = model.get("state");
      name.textContent = state.name;
      clearTimeout(timer);
      if (state.changes - changes > 1) {
        show(!state.lit);
        timer = setTimeout(() => show(state.lit), FLASH);
      } else show(state.lit);
      changes = state.changes;
    };
    light.setAttribute("role", "img");
    model.on("change:state", draw);
    draw();
    return () => { clearTimeout(timer); model.off("change:state", draw); };
  },
};
