// The slices of a case. They travel as text, and nothing is decoded before it is shown.
const FACTS = JSON.parse(document.getElementById("facts-of-views").textContent);
const KEPT = 5;
const decoded = new Map();

const bytesOf = (id) => {
  const text = document.getElementById(id).textContent;
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
};

// One WebP holds all slices, row by row; out come the grey values slice by slice.
const greyOf = async (index, facts) => {
  const bitmap = await createImageBitmap(new Blob([bytesOf(`image-${index}`)], { type: "image/webp" }));
  const sheet = document.createElement("canvas");
  sheet.width = bitmap.width;
  sheet.height = bitmap.height;
  const context = sheet.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const [height, width] = facts.frame, out = new Uint8Array(facts.z.length * height * width);
  facts.z.forEach((_, k) => {
    const left = (k % facts.columns) * width, top = Math.floor(k / facts.columns) * height;
    const tile = context.getImageData(left, top, width, height).data, start = k * height * width;
    for (let i = 0; i < height * width; i++) out[start + i] = tile[4 * i];
  });
  bitmap.close();
  return out;
};

// Runs of 3 * reference + prediction: all values, then all lengths less one in two bytes.
const labelsOf = async (index, facts) => {
  const packed = new Blob([bytesOf(`labels-${index}`)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = new Uint8Array(await new Response(packed).arrayBuffer());
  const runs = raw.length / 3, out = new Uint8Array(facts.z.length * facts.frame[0] * facts.frame[1]);
  for (let i = 0, at = 0; i < runs; i++) {
    const end = at + 1 + raw[runs + 2 * i] + 256 * raw[runs + 2 * i + 1];
    out.fill(raw[i], at, end);
    at = end;
  }
  return out;
};

const viewOf = (index) => {
  const facts = FACTS[index];
  if (!facts) return null;
  const found = decoded.get(index) || Promise.all([facts.image ? greyOf(index, facts) : null, labelsOf(index, facts)])
    .then(([grey, both]) => ({ facts, grey, both }));
  decoded.delete(index);
  decoded.set(index, found);
  if (decoded.size > KEPT) decoded.delete(decoded.keys().next().value);
  return found;
};

// The outline of a mask as closed lines through the middles between its pixels and others (marching squares). The lines are
// joined, so that dashes run on.
const outline = (values, start, height, width, inside) => {
  const at = (x, y) => (x >= 0 && y >= 0 && x < width && y < height && inside[values[start + y * width + x]] ? 1 : 0);
  const across = 2 * width + 4, next = new Map();
  const point = (x, y) => (y + 2) * across + x + 2;
  for (let y = -1; y < height; y++) {
    let left = 2 * at(-1, y) + at(-1, y + 1);
    for (let x = -1; x < width; x++) {
      const right = 2 * at(x + 1, y) + at(x + 1, y + 1), corners = 4 * left + right;
      left = right;
      if (corners === 0 || corners === 15) continue;
      const up = point(2 * x + 1, 2 * y), down = point(2 * x + 1, 2 * y + 2);
      const west = point(2 * x, 2 * y + 1), east = point(2 * x + 2, 2 * y + 1);
      const [topLeft, bottomLeft, topRight, bottomRight] = [corners & 8, corners & 4, corners & 2, corners & 1];
      const crossed = [];
      if (!topLeft !== !topRight) crossed.push(topLeft ? [up, 1] : [up, 0]);
      if (!topRight !== !bottomRight) crossed.push(topRight ? [east, 1] : [east, 0]);
      if (!bottomRight !== !bottomLeft) crossed.push(bottomRight ? [down, 1] : [down, 0]);
      if (!bottomLeft !== !topLeft) crossed.push(bottomLeft ? [west, 1] : [west, 0]);
      // Clockwise round the cell, a line enters where inside follows outside, and leaves at the next crossing.
      for (let i = 0; i < crossed.length; i++) {
        const [from, leaves] = crossed[i];
        if (!leaves) next.set(from, crossed[(i + 1) % crossed.length][0]);
      }
    }
  }
  if (!next.size) return null;
  const path = new Path2D(), place = (p) => [((p % across) - 2) / 2 + 0.5, (Math.floor(p / across) - 2) / 2 + 0.5];
  while (next.size) {
    const first = next.keys().next().value;
    path.moveTo(...place(first));
    for (let here = first; next.has(here);) {
      const there = next.get(here);
      next.delete(here);
      here = there;
      if (here !== first) path.lineTo(...place(here));
    }
    path.closePath();
  }
  return path;
};
