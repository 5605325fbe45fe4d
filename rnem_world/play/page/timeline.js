// The timeline: returns, rewards and uncertainty of what has been; dragging goes there.

const LEAST_STEPS = 120;
const COLOURS = { dream: "#e8ecf4", branch: "#ffa53b", real: "#5fd38a" };

export class Timeline {
  /**
   * @param {HTMLCanvasElement} canvas Where it is drawn.
   * @param {function(number)} seek Called with the time to go to.
   */
  constructor(canvas, seek) {
    this.canvas = canvas;
    this.lanes = new Map(); // by name: Map from time to {reward, total, uncertainty, changed}
    this.kept = [];
    this.epoch = null;
    this.picture = null;
    this.asked = null;
    this.seek = seek;
    let holds = false;
    const go = (event) => {
      if (!this.picture) return;
      const box = canvas.getBoundingClientRect();
      const [first, span] = this.#span();
      const time = Math.round(first + ((event.clientX - box.left) / box.width) * span);
      const to = Math.min(Math.max(time, this.picture.first), this.picture.last);
      if (to !== this.asked) seek((this.asked = to));
    };
    canvas.addEventListener("pointerdown", (event) => {
      holds = true;
      this.asked = null;
      canvas.setPointerCapture(event.pointerId);
      go(event);
    });
    canvas.addEventListener("pointermove", (event) => holds && go(event));
    canvas.addEventListener("pointerup", () => (holds = false));
    canvas.addEventListener("pointercancel", () => (holds = false));
  }

  /** Takes a picture in. */
  add(picture) {
    this.picture = picture;
    if (picture.epoch !== this.epoch) {
      this.lanes.clear();
      this.epoch = picture.epoch;
    }
    const names = picture.lanes.map((lane) => lane.name);
    for (const name of this.lanes.keys()) if (!names.includes(name)) this.lanes.delete(name);
    for (const lane of picture.lanes) {
      if (!this.lanes.has(lane.name)) {
        // A branch has the past that it shares with the dream.
        const past = lane.name === "branch" ? (this.lanes.get("dream") ?? []) : [];
        this.lanes.set(lane.name, new Map([...past].filter(([time]) => time <= picture.time)));
      }
      const past = this.lanes.get(lane.name);
      const { reward, total, uncertainty, changed } = lane;
      past.set(picture.time, { reward, total, uncertainty, changed });
      past.delete(picture.first - 1);
      if (past.size > picture.last - picture.first + 2)
        for (const time of past.keys())
          if (time < picture.first || (time > picture.last && !lane.replays)) past.delete(time);
    }
  }

  #span() {
    const { first, last } = this.picture;
    return [first, Math.max(last - first, LEAST_STEPS)];
  }

  draw(unit) {
    const { canvas, picture } = this;
    if (!picture) return;
    const ratio = window.devicePixelRatio || 1;
    const box = canvas.getBoundingClientRect();
    const [w, h] = [Math.round(box.width * ratio), Math.round(box.height * ratio)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, w, h);
    const [first, span] = this.#span();
    const x = (time) => ((time - first) / span) * w;
    const base = h - 6 * ratio, top = 12 * ratio;
    this.#uncertainty(context, x, base, top, unit);
    const all = [...this.lanes.values()].flatMap((past) => [...past.values()].map((each) => each.total));
    const low = Math.min(0, ...all), high = Math.max(0, ...all);
    const size = Math.max(high - low, 1);
    const y = (total) => base - 8 * ratio - ((total - low) / size) * (base - top - 12 * ratio);
    context.strokeStyle = "rgb(255 255 255 / 0.10)";
    context.lineWidth = ratio;
    context.beginPath();
    context.moveTo(0, y(0));
    context.lineTo(w, y(0));
    context.stroke();
    for (const [name, past] of this.lanes) this.#lane(context, name, past, x, y, base, ratio);
    for (const { time, epoch } of this.kept) if (epoch === this.epoch) this.#flag(context, x(time), ratio);
    context.fillStyle = "rgb(255 255 255 / 0.45)";
    context.font = `${11 * ratio}px system-ui, sans-serif`;
    if (high > 0) context.fillText(high.toFixed(1), 4 * ratio, y(high) - 3 * ratio);
    if (low < 0) context.fillText(low.toFixed(1), 4 * ratio, y(low) - 3 * ratio);
    const now = x(picture.time);
    context.fillStyle = "#fff";
    context.fillRect(now - ratio, 0, 2 * ratio, h);
    context.beginPath();
    context.arc(now, 5 * ratio, 5 * ratio, 0, 7);
    context.fill();
  }

  #lane(context, name, past, x, y, base, ratio) {
    const times = [...past.keys()].sort((a, b) => a - b);
    context.strokeStyle = context.fillStyle = COLOURS[name];
    context.lineWidth = 2 * ratio;
    context.lineJoin = "round";
    context.beginPath();
    times.forEach((time, i) => context[i && times[i - 1] === time - 1 ? "lineTo" : "moveTo"](x(time), y(past.get(time).total)));
    context.stroke();
    for (const time of times) {
      const { reward, changed } = past.get(time);
      if (Math.abs(reward) > 0.1 && name !== "real") {
        context.fillStyle = reward > 0 ? "#5fd38a" : "#ff6b6b";
        context.fillRect(x(time) - ratio, base - Math.min(Math.abs(reward), 1.5) * 5 * ratio, 2 * ratio, Math.min(Math.abs(reward), 1.5) * 5 * ratio + 4 * ratio);
      }
      if (changed) {
        context.fillStyle = COLOURS[name];
        context.beginPath();
        context.arc(x(time), y(past.get(time).total), 3.5 * ratio, 0, 7);
        context.fill();
      }
    }
  }

  #uncertainty(context, x, base, top, unit) {
    const past = this.lanes.get("dream");
    if (!past) return;
    const times = [...past.keys()].sort((a, b) => a - b);
    context.fillStyle = "rgb(120 140 255 / 0.22)";
    context.beginPath();
    times.forEach((time, i) => {
      if (!i) context.moveTo(x(time), base);
      context.lineTo(x(time), base - Math.min(past.get(time).uncertainty / unit, 1) * (base - top));
      if (i === times.length - 1) context.lineTo(x(time), base);
    });
    context.fill();
  }

  #flag(context, left, ratio) {
    context.fillStyle = "#ffd35c";
    context.beginPath();
    context.moveTo(left, 0);
    context.lineTo(left + 9 * ratio, 4 * ratio);
    context.lineTo(left, 8 * ratio);
    context.fill();
  }
}
