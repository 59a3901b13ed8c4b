/* The geometry of the picture: layers from left to right, wrapped into lines as text is, and the ways between.
 *
 * Third of the parts that `widget.py` joins into one ES module. Draws nothing.
 */

const GAP = { x: 54, widest: 170, y: 18, line: 56 };
const RAIL = 44; // room beside the cards for edges that go around to the next line
const BAND = { x: 14, top: 26, bottom: 14 };
const TALL = 720; // px; a taller picture is drawn smaller, as far as it stays legible
const SIZES = [1, 0.9, 0.8];

function height(node, devices) {
  if (node.kind === "devices") return Math.max(CARD.h, 58 + ROW * Math.max(1, devices));
  return CARD.h;
}

export function geometry(structure, width, devices) {
  const layers = [];
  for (const node of structure.nodes) (layers[node.layer] ??= []).push(node);
  for (const layer of layers) layer.sort((a, b) => a.row - b.row);
  const side = (n) => (n < layers.length ? RAIL : BAND.x + 2);
  const room = (n) => n * CARD.w + (n - 1) * GAP.x + 2 * side(n);
  let columns = layers.length;
  while (columns > 2 && room(columns) > width) columns--;
  // No line with a single last card.
  columns = Math.max(2, Math.ceil(layers.length / Math.ceil(layers.length / columns)));
  const left = side(columns);
  const free = (width - 2 * left - columns * CARD.w) / (columns - 1);
  const gap = Math.max(GAP.x, Math.min(GAP.widest, free));
  const places = new Map();
  const bands = [];
  let top = 0;
  for (let first = 0; first < layers.length; first += columns) {
    const line = layers.slice(first, first + columns);
    const tall = (layer) => layer.reduce((sum, n) => sum + height(n, devices) + GAP.y, -GAP.y);
    const lineHeight = Math.max(...line.map(tall));
    line.forEach((layer, column) => {
      const x = left + column * (CARD.w + gap);
      let y = top + BAND.top + (lineHeight - tall(layer)) / 2;
      for (const node of layer) {
        const h = height(node, devices);
        places.set(node.key, { x, y, w: CARD.w, h, line: first / columns, column, floor: top });
        y += h + GAP.y;
      }
      const last = bands.at(-1);
      const right = x + CARD.w + BAND.x;
      if (last && last.kind === layer[0].kind && last.top === top) last.right = right;
      else bands.push({ kind: layer[0].kind, left: x - BAND.x, right, top, height: lineHeight + BAND.top + BAND.bottom,
        again: last?.kind === layer[0].kind });
    });
    top += lineHeight + BAND.top + BAND.bottom + GAP.line;
  }
  return { places, bands, width: columns * (CARD.w + gap) - gap + 2 * left, height: top - GAP.line };
}

/** Return the geometry at the largest of a few scales that isn't too tall, else at the smallest. */
function fitted(structure, width, devices) {
  let map;
  for (const scale of SIZES) {
    map = { ...geometry(structure, width / scale, devices), scale };
    if (map.height * scale <= TALL) break;
  }
  return map;
}

/** Return the way from card `a` to card `b`: a curve, or around the corner if `b` is in a later line. */
export function way(a, b, shift) {
  const [x1, y1, x2, y2] = [a.x + a.w, a.y + a.h / 2 + shift, b.x, b.y + b.h / 2 + shift];
  if (a.line === b.line) {
    const bend = Math.max(18, (x2 - x1) / 2);
    return { d: `M${x1},${y1}C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`, x1, y1, x2, y2 };
  }
  const [out, into, r] = [x1 + 26 - shift, x2 - 26 - shift, 8];
  const floor = b.floor - GAP.line / 2 - shift; // so that an arrow's two ways don't cross
  const d = `M${x1},${y1}H${out - r}q${r},0 ${r},${r}V${floor - r}q0,${r} ${-r},${r}` +
    `H${into + r}q${-r},0 ${-r},${r}V${y2 - r}q0,${r} ${r},${r}H${x2}`;
  return { d, x1, y1, x2, y2 };
}
