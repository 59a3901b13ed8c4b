/* Pan and zoom of the picture, by mouse, touch and buttons.
 *
 * Fourth of the parts that `widget.py` joins into one ES module.
 */

function camera(parts) {
  const at = { x: 0, y: 0, k: 1, touched: false };
  let size = { width: 1, height: 1 };
  const apply = () => parts.scene.setAttribute("transform", `translate(${at.x.toFixed(1)},${at.y.toFixed(1)}) scale(${at.k.toFixed(3)})`);
  function fit() {
    const width = parts.view.clientWidth || 1;
    at.k = Math.min(size.scale ?? 1, Math.max(0.45, width / size.width));
    at.x = at.y = 0;
    at.touched = false;
    parts.view.style.height = `${Math.ceil(size.height * at.k)}px`;
    apply();
  }
  function zoom(factor, x = parts.view.clientWidth / 2, y = parts.view.clientHeight / 2) {
    const k = Math.min(3, Math.max(0.2, at.k * factor));
    [at.x, at.y] = [x - ((x - at.x) * k) / at.k, y - ((y - at.y) * k) / at.k];
    at.k = k;
    at.touched = true;
    apply();
  }
  function pan(dx, dy) { at.x += dx; at.y += dy; at.touched = true; apply(); }
  for (const [label, name, act] of [["−", "Zoom out", () => zoom(1 / 1.25)], ["fit", "Fit to the width", fit], ["+", "Zoom in", () => zoom(1.25)]]) {
    const button = make("button", { type: "button", class: "pp-button", title: name, "aria-label": name }, label);
    button.addEventListener("click", act);
    parts.zoom.append(button);
  }
  // The wheel without a key scrolls the page: a picture that catches it makes a notebook hard to scroll.
  parts.view.addEventListener("wheel", (e) => {
    if (!e.ctrlKey && !e.metaKey) return;
    e.preventDefault();
    const box = parts.view.getBoundingClientRect();
    zoom(Math.exp(-e.deltaY / 300), e.clientX - box.left, e.clientY - box.top);
  }, { passive: false });
  let from = null;
  parts.view.addEventListener("pointerdown", (e) => { if (e.button === 0) from = { x: e.clientX, y: e.clientY, moved: false }; });
  parts.view.addEventListener("pointermove", (e) => {
    if (!from) return;
    const [dx, dy] = [e.clientX - from.x, e.clientY - from.y];
    if (!from.moved && Math.hypot(dx, dy) < 4) return;
    if (!from.moved) parts.view.setPointerCapture(e.pointerId);
    from = { x: e.clientX, y: e.clientY, moved: true };
    pan(dx, dy);
  });
  const release = () => { from = null; };
  parts.view.addEventListener("pointerup", release);
  parts.view.addEventListener("pointercancel", release);
  return { fit, zoom, pan, show(next) { size = next; if (!at.touched) fit(); } };
}
