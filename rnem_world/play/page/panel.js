// One lane on the screen: its frame, large and sharp, who owns which pixel, attention, and objects that can be touched.

export const NOBODY = 255;
const LEAST_MASS = 5; // pixels; a slot with fewer has no object
const REACH = 1.6; // pixels of the frame by which a pointer may miss an object
const DRAG = 6; // pixels of the screen that make a drag of a click
const NAMES = { dream: "Dream", branch: "What if?", real: "Reality" };

export function hasObject(slot) {
  return slot[2] >= LEAST_MASS;
}

/** Finds whose object is at a place, in the frame's pixels; NOBODY if nothing is near. */
export function ownerAt(lane, facts, x, y) {
  const [height, width] = facts.frame;
  let found = NOBODY, nearest = REACH * REACH;
  for (let v = Math.max(0, Math.floor(y - REACH)); v <= Math.min(height - 1, y + REACH); v++)
    for (let u = Math.max(0, Math.floor(x - REACH)); u <= Math.min(width - 1, x + REACH); u++) {
      const owner = lane.owner[v * width + u];
      if (owner === NOBODY || !hasObject(lane.slots[owner])) continue;
      const dx = Math.max(u - x, x - u - 1, 0), dy = Math.max(v - y, y - v - 1, 0);
      if (dx * dx + dy * dy < nearest) [found, nearest] = [owner, dx * dx + dy * dy];
    }
  return found;
}

/** Paints a lane's frame into pixels (RGBA), in the given look: frame, owners or outlines. */
export function paint(lane, facts, look, data) {
  const [height, width, channels] = facts.frame;
  const { frame, owner, share } = lane;
  const coloured = look === "owners" && owner;
  for (let p = 0; p < height * width; p++) {
    let r = frame[p * channels], g = r, b = r;
    if (channels === 3) [g, b] = [frame[p * 3 + 1], frame[p * 3 + 2]];
    if (coloured && owner[p] !== NOBODY) {
      const [cr, cg, cb] = facts.colours[owner[p]];
      // Bits are drawn in the owner's colour, paler where it has to share; colours are tinted.
      const much = (facts.binary ? 1 : 0.62) * (share[p] / 255);
      const light = facts.binary ? 1 : 0.45 + 0.55 * (Math.max(r, g, b) / 255);
      [r, g, b] = [r + (cr * light - r) * much, g + (cg * light - g) * much, b + (cb * light - b) * much];
    } else if (coloured && !facts.binary) {
      const grey = 0.4 * ((r + g + b) / 3);
      [r, g, b] = [grey, grey, grey + 4];
    }
    data[p * 4] = r;
    data[p * 4 + 1] = g;
    data[p * 4 + 2] = b;
    data[p * 4 + 3] = 255;
  }
}

/** Fills one of the frame's pixels, without a seam to the next. */
function fillPixel(context, x, y, scale) {
  const [left, top] = [Math.round(x * scale), Math.round(y * scale)];
  context.fillRect(left, top, Math.round((x + 1) * scale) - left, Math.round((y + 1) * scale) - top);
}

export class Panel {
  /**
   * @param {string} name The lane's.
   * @param {object} facts The world's.
   * @param {object} touched What to call when an object is touched: remove, place, exchange, grab, drop, hover.
   */
  constructor(name, facts, touched) {
    this.name = name;
    this.facts = facts;
    this.touched = touched;
    this.lane = null;
    this.hovered = NOBODY;
    this.drag = null;
    const [height, width] = facts.frame;
    this.element = document.createElement("figure");
    this.element.className = `panel ${name}`;
    this.element.dataset.lane = name;
    this.element.innerHTML =
      '<figcaption><b></b><span class="note"></span><span class="numbers"><span class="reward"></span>' +
      '<span class="total"></span></span></figcaption><div class="screen"><canvas class="pixels"></canvas>' +
      '<canvas class="over"></canvas><p class="ended">The episode is over</p></div>';
    this.element.querySelector("b").textContent = NAMES[name];
    this.screen = this.element.querySelector(".screen");
    this.screen.style.aspectRatio = `${width} / ${height}`;
    this.pixels = this.element.querySelector(".pixels");
    [this.pixels.width, this.pixels.height] = [width, height];
    this.context = this.pixels.getContext("2d");
    this.image = this.context.createImageData(width, height);
    this.over = this.element.querySelector(".over");
    this.over.setAttribute("aria-label", `${NAMES[name]}: the frame, ${width} by ${height} pixels`);
    if (name !== "real") this.#listen();
  }

  draw(lane, look, attention) {
    this.lane = lane;
    paint(lane, this.facts, look, this.image.data);
    this.context.putImageData(this.image, 0, 0);
    const sign = lane.reward > 0.005 ? "+" : "";
    const reward = this.element.querySelector(".reward");
    reward.textContent = sign + lane.reward.toFixed(2);
    reward.classList.toggle("good", lane.reward > 0.05);
    reward.classList.toggle("bad", lane.reward < -0.05);
    this.element.querySelector(".total").textContent = lane.total.toFixed(1);
    this.element.classList.toggle("over", lane.ended);
    this.drawOver(look, attention);
  }

  note(text) {
    this.element.querySelector(".note").textContent = text;
  }

  /** Draws what lies over the frame: attention, outlines, the object under the pointer. */
  drawOver(look, attention) {
    const box = this.over.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
    if (this.over.width !== w || this.over.height !== h) [this.over.width, this.over.height] = [w, h];
    const context = this.over.getContext("2d");
    context.clearRect(0, 0, w, h);
    if (!this.lane.slots || !w) return;
    const scale = w / this.facts.frame[1];
    if (look === "outlines") for (let k = 0; k < this.facts.slots; k++) this.#outline(context, k, scale, 1.5 * ratio);
    if (attention && this.lane.attention) this.#attention(context, scale, ratio);
    if (this.hovered !== NOBODY && !this.drag?.moved) {
      context.shadowColor = "#000";
      context.shadowBlur = 4 * ratio;
      this.#outline(context, this.hovered, scale, 2.5 * ratio, "#fff");
      context.shadowBlur = 0;
    }
    if (this.drag?.moved) this.#ghost(context, scale);
  }

  #outline(context, slot, scale, width, colour = this.#colour(slot)) {
    const [h, w] = this.facts.frame;
    const mine = (x, y) => x >= 0 && y >= 0 && x < w && y < h && this.lane.owner[y * w + x] === slot;
    context.beginPath();
    for (let y = 0; y < h; y++)
      for (let x = 0; x < w; x++) {
        if (!mine(x, y)) continue;
        const [l, t, r, b] = [x * scale, y * scale, (x + 1) * scale, (y + 1) * scale];
        if (!mine(x, y - 1)) { context.moveTo(l, t); context.lineTo(r, t); }
        if (!mine(x, y + 1)) { context.moveTo(l, b); context.lineTo(r, b); }
        if (!mine(x - 1, y)) { context.moveTo(l, t); context.lineTo(l, b); }
        if (!mine(x + 1, y)) { context.moveTo(r, t); context.lineTo(r, b); }
      }
    [context.strokeStyle, context.lineWidth, context.lineCap] = [colour, width, "square"];
    context.stroke();
  }

  /** Draws an arc from each object to those that attend to it, in its colour, as strong as their attention. */
  #attention(context, scale, ratio) {
    const { slots, attention } = this.lane;
    context.lineCap = "round";
    for (let to = 0; to < slots.length; to++)
      for (let from = 0; from < slots.length; from++) {
        const much = attention[to][from];
        if (to === from || much < 0.03 || !hasObject(slots[to]) || !hasObject(slots[from])) continue;
        const [x0, y0, x1, y1] = [slots[from][0], slots[from][1], slots[to][0], slots[to][1]].map((v) => v * scale);
        const [dx, dy] = [x1 - x0, y1 - y0];
        const [mx, my] = [(x0 + x1) / 2 - dy * 0.18, (y0 + y1) / 2 + dx * 0.18];
        const line = context.createLinearGradient(x0, y0, x1, y1);
        line.addColorStop(0, this.#colour(from, 0.15 * much));
        line.addColorStop(1, this.#colour(from, Math.min(1, 0.25 + much)));
        [context.strokeStyle, context.lineWidth] = [line, (0.8 + 4.5 * much) * ratio];
        context.beginPath();
        context.moveTo(x0, y0);
        context.quadraticCurveTo(mx, my, x1, y1);
        context.stroke();
        context.fillStyle = this.#colour(from);
        context.beginPath();
        context.arc(x1, y1, (1 + 3 * much) * ratio, 0, 7);
        context.fill();
      }
  }

  /** Draws the pixels that are being dragged, where they are to be. */
  #ghost(context, scale) {
    const [height, width] = this.facts.frame;
    const { slot, x, y } = this.drag;
    const [cx, cy] = this.lane.slots[slot];
    context.globalAlpha = 0.75;
    context.fillStyle = this.#colour(slot);
    const [dx, dy] = [Math.round(x - cx), Math.round(y - cy)];
    for (let v = 0; v < height; v++)
      for (let u = 0; u < width; u++)
        if (this.lane.owner[v * width + u] === slot)
          fillPixel(context, u + dx, v + dy, scale);
    context.globalAlpha = 1;
    const other = ownerAt(this.lane, this.facts, x, y);
    if (other !== NOBODY && other !== slot) this.#outline(context, other, scale, 0.35 * scale, "#fff");
  }

  #colour(slot, alpha = 1) {
    return `rgb(${this.facts.colours[slot].join(" ")} / ${alpha})`;
  }

  #place(event) {
    const box = this.over.getBoundingClientRect();
    const [height, width] = this.facts.frame;
    const clip = (value, most) => Math.min(Math.max(value, 0), most);
    return [
      clip(((event.clientX - box.left) / box.width) * width, width),
      clip(((event.clientY - box.top) / box.height) * height, height),
    ];
  }

  #listen() {
    const over = this.over;
    over.addEventListener("pointerdown", (event) => {
      if (!this.lane || event.button !== 0) return;
      const [x, y] = this.#place(event);
      const slot = ownerAt(this.lane, this.facts, x, y);
      if (slot === NOBODY) return;
      event.preventDefault();
      over.setPointerCapture(event.pointerId);
      this.drag = { slot, x, y, at: [event.clientX, event.clientY], moved: false };
      this.touched.grab();
    });
    over.addEventListener("pointermove", (event) => {
      if (!this.lane) return;
      const [x, y] = this.#place(event);
      if (this.drag) {
        const [left, top] = this.drag.at;
        this.drag.moved ||= Math.hypot(event.clientX - left, event.clientY - top) > DRAG;
        [this.drag.x, this.drag.y] = [x, y];
      } else this.hovered = ownerAt(this.lane, this.facts, x, y);
      over.style.cursor = this.drag?.moved ? "grabbing" : this.hovered === NOBODY ? "default" : "pointer";
      this.touched.hover(this.hovered);
    });
    over.addEventListener("pointerleave", () => {
      this.hovered = NOBODY;
      this.touched.hover(NOBODY);
    });
    over.addEventListener("pointercancel", () => {
      this.drag = null;
      this.touched.drop();
    });
    over.addEventListener("pointerup", (event) => {
      if (!this.drag) return;
      const { slot, x, y, moved } = this.drag;
      this.drag = null;
      const other = ownerAt(this.lane, this.facts, x, y);
      if (!moved) this.touched.remove(this.name, slot);
      else if (other !== NOBODY && other !== slot) this.touched.exchange(this.name, slot, other);
      else this.touched.place(this.name, slot, x, y, !event.shiftKey);
      this.touched.drop();
    });
  }
}
