// One viewer: an image, the labels of both sides over it, and the keys that a radiologist expects.
const [LOW, HIGH] = JSON.parse(document.getElementById("range-hu").textContent);
const REFERENCE = "#56B4E9", PREDICTION = "#E69F00", AGREED = "#009E73";
const WINDOWS = { liver: [100, 160], soft: [40, 400], wide: [(LOW + HIGH) / 2, HIGH - LOW] };
const NAMES = Object.keys(WINDOWS);
const MODES = ["image", "reference", "prediction", "both", "errors"];
const ZOOMS = [1, 2, 4];
const both = [0, 1, 2, 3, 4, 5, 6, 7, 8], isRef = (v, k) => Math.floor(v / 3) === k, isPred = (v, k) => v % 3 === k;
const MASKS = {
  refLiver: both.map(v => !isRef(v, 0)), predLiver: both.map(v => !isPred(v, 0)),
  refTumour: both.map(v => isRef(v, 2)), predTumour: both.map(v => isPred(v, 2)),
  missed: both.map(v => isRef(v, 2) && !isPred(v, 2)), wrong: both.map(v => isPred(v, 2) && !isRef(v, 2)),
  agreed: both.map(v => isRef(v, 2) && isPred(v, 2)),
  liverMissed: both.map(v => !isRef(v, 0) && isPred(v, 0)), liverWrong: both.map(v => isRef(v, 0) && !isPred(v, 0)),
};

const hatch = (colour, falling, ratio) => {
  const tile = document.createElement("canvas"), size = Math.round(8 * ratio);
  tile.width = tile.height = size;
  const pen = tile.getContext("2d");
  pen.strokeStyle = colour;
  pen.lineWidth = 1.5 * ratio;
  pen.beginPath();
  for (const shift of [-size, 0, size]) {
    pen.moveTo(shift, falling ? 0 : size);
    pen.lineTo(shift + size, falling ? size : 0);
  }
  pen.stroke();
  return pen.createPattern(tile, "repeat");
};

class Viewer {
  constructor(root, lesionsOf) {
    const find = name => root.querySelector(name);
    Object.assign(this, { root, lesionsOf, screen: find(".screen"), canvas: find("canvas"), slider: find("input[type=range]"),
      place: find(".place"), said: find(".said"), chips: find(".chips"), select: find("select"), name: find(".name") });
    this.pen = this.canvas.getContext("2d");
    this.base = document.createElement("canvas");
    this.mode = root.dataset.mode || "both";
    this.window = "soft";
    Object.assign(this, { zoom: 1, centre: null, at: 0, hidden: false, view: null, lesion: null, wanted: null, turned: 0 });
    root.querySelectorAll("[data-mode-of]").forEach(b => b.addEventListener("click", () => this.set({ mode: b.dataset.modeOf })));
    this.select.addEventListener("change", () => this.set({ window: this.select.value }));
    find("[data-zoom]").addEventListener("click", () => this.enlarge());
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.screen.addEventListener("keydown", event => this.press(event));
    root.addEventListener("wheel", event => this.wheel(event), { passive: false });
    this.screen.addEventListener("pointerdown", event => this.grab(event));
    new ResizeObserver(() => this.draw()).observe(this.screen);
  }

  // Shows a case: where `lesion` is, or else the slice with most tumour of the reference, or with most that is wrong.
  async show(index, lesion = null) {
    this.wanted = [index, lesion];
    const wanted = this.wanted, view = await viewOf(index);
    if (wanted !== this.wanted || !view) return;
    const other = this.view?.facts !== view.facts, { facts } = view;
    this.view = view;
    this.index = index;
    this.lesion = lesion;
    this.slider.max = facts.z.length - 1;
    this.name.textContent = facts.case;
    this.root.querySelector(".says").textContent = facts.says;
    this.base.width = facts.frame[1];
    this.base.height = facts.frame[0];
    if (other) this.list(index);
    this.centre = lesion ? this.pixel(lesion) : null;
    if (!lesion && other) this.zoom = 1;
    if (lesion && this.root.dataset.main && this.zoom === 1 && lesion.radius < 0.1 * Math.max(...facts.frame)) this.zoom = 2;
    this.chips.querySelectorAll("button").forEach(chip => chip.setAttribute("aria-pressed", String(chip.lesion === lesion)));
    this.go(lesion ? this.nearest(lesion.z) : this.best());
  }

  set(change) {
    Object.assign(this, change);
    this.root.dataset.mode = this.mode;
    this.draw();
  }

  go(at) {
    if (!this.view) return;
    this.at = Math.max(0, Math.min(this.view.facts.z.length - 1, at));
    this.draw();
  }

  nearest(z) {
    return this.view.facts.z.reduce((best, other, k, all) => (Math.abs(other - z) < Math.abs(all[best] - z) ? k : best), 0);
  }

  best() {
    const { facts, both: values } = this.view, size = facts.frame[0] * facts.frame[1];
    const count = mask => facts.z.map((_, k) => {
      let sum = 0;
      for (let i = k * size; i < (k + 1) * size; i++) sum += mask[values[i]];
      return sum;
    });
    for (const masks of ["refTumour", "predTumour", "liverMissed", "refLiver"]) {
      const counts = count(MASKS[masks]), most = Math.max(...counts);
      if (most) return counts.indexOf(most);
    }
    return Math.floor(facts.z.length / 2);
  }

  pixel(lesion) {
    const { corner, scale } = this.view.facts;
    return [(lesion.x + 0.5 - corner[1]) * scale, (lesion.y + 0.5 - corner[0]) * scale];
  }

  list(index) {
    this.chips.replaceChildren(...this.lesionsOf(index).map(lesion => {
      const chip = document.createElement("button");
      chip.type = "button";
      chip.className = `chip ${lesion.kind}`;
      chip.textContent = lesion.label;
      chip.title = lesion.title;
      chip.lesion = lesion;
      chip.addEventListener("click", () => this.show(index, lesion));
      return chip;
    }));
  }

  enlarge() {
    this.zoom = ZOOMS[(ZOOMS.indexOf(this.zoom) + 1) % ZOOMS.length];
    if (this.zoom === 1) this.centre = null;
    this.draw();
  }

  wheel(event) {
    if (event.ctrlKey || !this.view || !this.root.contains(document.activeElement)) return;
    event.preventDefault();
    // A notch of a wheel is one slice; a touchpad's many small steps are added up.
    this.turned += event.deltaMode ? 100 * event.deltaY : event.deltaY;
    const steps = Math.trunc(this.turned / 50) || 0;
    if (!steps) return;
    this.turned = 0;
    this.go(this.at - Math.sign(steps) * Math.min(3, Math.abs(steps) > 2 ? Math.round(Math.abs(steps) / 2) : 1));
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.view ? this.view.facts.z.length - 1 : 0;
    const moves = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -last, End: last };
    const actions = {
      w: () => this.set({ window: NAMES[(NAMES.indexOf(this.window) + 1) % NAMES.length] }),
      h: () => this.set({ hidden: !this.hidden }),
      z: () => this.enlarge(),
    };
    if (event.key in moves) this.go(this.at + moves[event.key]);
    else if (MODES[event.key - 1]) this.set({ mode: MODES[event.key - 1] });
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  }

  grab(event) {
    this.screen.focus({ preventScroll: true });
    if (this.zoom === 1 || !this.view || event.button) return;
    const start = [event.clientX, event.clientY], from = this.centre || this.view.facts.frame.map(n => n / 2).reverse();
    const drag = move => {
      this.centre = [from[0] - (move.clientX - start[0]) / this.scale[0], from[1] - (move.clientY - start[1]) / this.scale[1]];
      this.draw();
    };
    this.screen.addEventListener("pointermove", drag);
    const end = () => this.screen.removeEventListener("pointermove", drag);
    addEventListener("pointerup", end, { once: true });
    addEventListener("pointercancel", end, { once: true });
  }

  draw() {
    if (!this.view || !this.screen.clientWidth) return;
    const { facts, grey, both: values } = this.view, [height, width] = facts.frame, start = this.at * height * width;
    const ratio = Math.min(3, Math.max(1.5, devicePixelRatio)), wide = this.screen.clientWidth, high = this.screen.clientHeight;
    const [down, across] = facts.trusted ? facts.mm.slice(1) : [1, 1], pen = this.pen;
    this.canvas.width = Math.round(wide * ratio);
    this.canvas.height = Math.round(high * ratio);
    this.paint(grey, start, height * width);
    const fit = Math.min(wide / (width * across), high / (height * down)) * this.zoom;
    this.scale = [fit * across, fit * down];
    const centre = this.zoom > 1 && this.centre || [width / 2, height / 2];
    const matrix = new DOMMatrix([ratio * this.scale[0], 0, 0, ratio * this.scale[1],
      ratio * (wide / 2 - centre[0] * this.scale[0]), ratio * (high / 2 - centre[1] * this.scale[1])]);
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
    pen.setTransform(matrix);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.base, 0, 0);
    pen.setTransform(1, 0, 0, 1, 0, 0);
    if (!this.hidden) this.overlay(mask => {
      const path = outline(values, start, height, width, MASKS[mask]);
      if (!path) return null;
      const moved = new Path2D();
      moved.addPath(path, matrix);
      return moved;
    }, ratio);
    if (this.lesion && !this.hidden) this.mark(matrix, ratio);
    this.bar(ratio);
    this.tell();
  }

  paint(grey, start, size) {
    const pen = this.base.getContext("2d"), picture = pen.createImageData(this.base.width, this.base.height);
    const [centre, wide] = WINDOWS[this.window], out = new Uint32Array(picture.data.buffer);
    const table = Uint32Array.from({ length: 256 }, (_, value) => {
      const hu = LOW + value * (HIGH - LOW) / 255;
      return 0xff000000 | 0x010101 * Math.round(Math.max(0, Math.min(255, 255 * ((hu - centre) / wide + 0.5))));
    });
    for (let i = 0; i < size; i++) out[i] = grey ? table[grey[start + i]] : 0xff303030;
    pen.putImageData(picture, 0, 0);
  }

  overlay(path, ratio) {
    const pen = this.pen;
    const stroke = (mask, colour, thick, dash) => {
      const line = path(mask);
      if (!line) return;
      pen.setLineDash(dash.map(n => n * ratio));
      for (const [style, width] of [["rgba(0,0,0,.55)", thick + 1.4], [colour, thick]]) {
        pen.strokeStyle = style;
        pen.lineWidth = width * ratio;
        if (style !== colour) pen.setLineDash([]);
        if (style === colour || !dash.length) pen.stroke(line);
        pen.setLineDash(dash.map(n => n * ratio));
      }
      pen.setLineDash([]);
    };
    const fill = (mask, style, alpha) => {
      const area = path(mask);
      if (!area) return;
      pen.globalAlpha = alpha;
      pen.fillStyle = style;
      pen.fill(area, "evenodd");
      pen.globalAlpha = 1;
    };
    if (this.mode === "reference" || this.mode === "both") {
      stroke("refLiver", REFERENCE, 1, []);
      stroke("refTumour", REFERENCE, 2, []);
    }
    if (this.mode === "prediction" || this.mode === "both") {
      stroke("predLiver", PREDICTION, 1, [5, 3]);
      stroke("predTumour", PREDICTION, 2, [5, 3]);
    }
    if (this.mode === "errors") {
      fill("liverMissed", REFERENCE, 0.3);
      fill("liverWrong", PREDICTION, 0.3);
      fill("agreed", AGREED, 0.4);
      fill("missed", hatch(REFERENCE, false, ratio), 1);
      fill("wrong", hatch(PREDICTION, true, ratio), 1);
      stroke("missed", REFERENCE, 1.5, []);
      stroke("wrong", PREDICTION, 1.5, [5, 3]);
    }
  }

  // Four corners round the lesion that was jumped to, on its slices.
  mark(matrix, ratio) {
    const { lesion, pen } = this, z = this.view.facts.z[this.at];
    if (z < lesion.first || z > lesion.last) return;
    const centre = matrix.transformPoint(new DOMPoint(...this.pixel(lesion)));
    const reach = lesion.radius * this.view.facts.scale * this.scale[0] * ratio + 9 * ratio, arm = Math.min(reach, 11 * ratio);
    pen.strokeStyle = "#fff";
    pen.lineWidth = 1.5 * ratio;
    pen.beginPath();
    for (const [sx, sy] of [[-1, -1], [1, -1], [1, 1], [-1, 1]]) {
      const x = centre.x + sx * reach, y = centre.y + sy * reach;
      pen.moveTo(x - sx * arm, y);
      pen.lineTo(x, y);
      pen.lineTo(x, y - sy * arm);
    }
    pen.stroke();
  }

  bar(ratio) {
    const { facts } = this.view, pen = this.pen;
    if (!facts.trusted) return;
    const mm = this.zoom > 2 ? 10 : this.zoom > 1 ? 20 : 50, long = mm * this.scale[0] / facts.mm[2] * facts.scale * ratio;
    const right = this.canvas.width - 10 * ratio, y = this.canvas.height - 10 * ratio;
    pen.fillStyle = "#fff";
    pen.fillRect(right - long, y, long, 2 * ratio);
    pen.font = `${11 * ratio}px system-ui, sans-serif`;
    pen.textAlign = "right";
    pen.fillText(`${mm} mm`, right, y - 5 * ratio);
  }

  tell() {
    const { facts } = this.view, z = facts.z[this.at], { lesion } = this;
    const away = lesion && (z < lesion.first || z > lesion.last);
    this.slider.value = this.at;
    this.place.textContent = `slice ${z} of ${facts.shape[0]}`;
    this.slider.setAttribute("aria-valuetext", `slice ${z} of ${facts.shape[0]}${lesion && !away ? `, ${lesion.title}` : ""}`);
    const parts = [lesion ? `${lesion.title}${away ? ` on slices ${lesion.first} to ${lesion.last}` : ""}` : "",
      facts.left ? `${facts.left} slices are not in this page` : "", facts.image ? "" : "no image",
      facts.trusted ? "" : "spacing not to be trusted", this.hidden ? "overlay hidden (h)" : ""];
    this.said.textContent = parts.filter(Boolean).join("; ");
    this.select.value = this.window;
    this.root.querySelector("[data-zoom]").textContent = this.zoom === 1 ? "Zoom" : `${this.zoom}×`;
    this.root.querySelectorAll("[data-mode-of]").forEach(b => b.setAttribute("aria-pressed", String(b.dataset.modeOf === this.mode)));
  }
}
