// What a visitor does in a lane: keys, touch buttons, and for actions of other kinds choices and sliders.

const WORDS = ["up", "down", "left", "right", "fire"];
const ARROWS = { ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right", Space: "fire" };
const LETTERS = { KeyW: "up", KeyS: "down", KeyA: "left", KeyD: "right", KeyF: "fire" };
const PAD = [
  ["up left", "↖"], ["up", "↑"], ["up right", "↗"],
  ["left", "←"], ["", ""], ["right", "→"],
  ["down left", "↙"], ["down", "↓"], ["down right", "↘"],
]; // prettier-ignore
const MOST_BUTTONS = 12;

/** Reads directions out of the names of actions, as "up right" or "rightfire"; null if they aren't of this kind. */
export function directions(names) {
  const sets = names.map((name) => new Set(WORDS.filter((word) => name.includes(word))));
  const keys = sets.map((set) => [...set].join(" "));
  const fits = names.length > 1 && new Set(keys).size === keys.length && keys.some((key) => key === "");
  return fits ? sets : null;
}

/** Chooses the action that has most of what is pressed and nothing else. */
export function chosen(sets, pressed) {
  const wanted = new Set(pressed);
  if (wanted.has("up") && wanted.has("down")) ["up", "down"].forEach((word) => wanted.delete(word));
  if (wanted.has("left") && wanted.has("right")) ["left", "right"].forEach((word) => wanted.delete(word));
  let best = -1;
  sets.forEach((set, action) => {
    const fits = [...set].every((word) => wanted.has(word));
    if (fits && (best < 0 || set.size > sets[best].size)) best = action;
  });
  return Math.max(best, 0);
}

export class Actions {
  /**
   * @param {object} facts The world's.
   * @param {string} lane "dream", under the arrow keys, or "branch", under W A S D.
   * @param {function(any)} act Called with an action whenever another one is to be done.
   */
  constructor(facts, lane, act) {
    this.actions = facts.actions;
    this.keys = lane === "dream" ? ARROWS : LETTERS;
    this.lane = lane;
    this.pressed = new Set();
    this.last = null;
    this.act = act;
    this.element = document.createElement("div");
    this.element.className = `pad ${lane}`;
    this.sets = this.actions.kind === "discrete" ? directions(this.actions.names) : null;
    this.name = document.createElement("p");
    this.name.className = "doing";
    this.element.append(this.name);
    if (this.sets) this.#pad();
    else if (this.actions.kind === "discrete") this.#buttons();
    else this.#rows();
    this.show(this.rest());
  }

  /** What is done while nobody does anything. */
  rest() {
    const { kind, sizes, low, high } = this.actions;
    if (kind === "discrete") return 0;
    if (kind === "box") return low.map((least, i) => Math.min(Math.max(0, least), high[i]));
    return sizes.map(() => 0);
  }

  /** Does an action, if it isn't being done already. */
  do(action) {
    const key = JSON.stringify(action);
    if (key === this.last) return;
    this.last = key;
    this.show(action);
    this.act(action);
  }

  show(action) {
    const { kind, names } = this.actions;
    if (kind === "discrete") {
      this.name.textContent = names[action];
      this.element.querySelectorAll("[data-action]").forEach((button) => {
        button.setAttribute("aria-pressed", String(Number(button.dataset.action) === action));
      });
      return;
    }
    this.name.textContent = action.map((value) => (kind === "box" ? value.toFixed(2) : value)).join(", ");
    this.element.querySelectorAll("[data-place]").forEach((input) => {
      const value = action[Number(input.dataset.place)];
      if (input.type === "range") input.value = value;
      else input.setAttribute("aria-pressed", String(Number(input.dataset.value) === value));
    });
  }

  /** Lets go of everything, as when the window loses the keyboard. */
  release() {
    if (!this.pressed.size) return;
    this.pressed.clear();
    this.#press();
  }

  /** Handles a key; says whether it means anything here. */
  key(code, down) {
    const digit = /^Digit(\d)$/.exec(code);
    if (this.actions.kind === "discrete" && !this.sets) {
      const number = this.actions.names.length;
      const arrows = number === 2 ? { ArrowLeft: 0, ArrowRight: 1 } : {};
      const action = this.lane === "dream" && code in arrows ? arrows[code] : digit ? Number(digit[1]) : -1;
      if (this.lane !== "dream" || action < 0 || action >= number) return false;
      if (down) this.do(action);
      return true;
    }
    const word = this.keys[code];
    if (!word || (this.sets && !this.sets.some((set) => set.has(word)))) return false;
    if (!this.sets && (this.actions.kind !== "box" || word === "fire")) return false;
    if (down) this.pressed.add(word);
    else this.pressed.delete(word);
    this.#press();
    return true;
  }

  #press() {
    if (this.sets) this.do(chosen(this.sets, this.pressed));
    else if (this.actions.kind === "box") {
      // Left and right are the first number's ends, down and up the second's.
      const action = this.rest(), { low, high } = this.actions;
      const ends = [["left", "right"], ["down", "up"]];
      ends.slice(0, action.length).forEach(([less, more], i) => {
        if (this.pressed.has(less)) action[i] = low[i];
        if (this.pressed.has(more)) action[i] = high[i];
      });
      this.do(action);
    }
  }

  #hold(button, words) {
    const set = (down) => (event) => {
      event.preventDefault();
      if (down) button.setPointerCapture(event.pointerId);
      words.forEach((word) => (down ? this.pressed.add(word) : this.pressed.delete(word)));
      this.#press();
    };
    button.addEventListener("pointerdown", set(true));
    ["pointerup", "pointercancel"].forEach((name) => button.addEventListener(name, set(false)));
    button.addEventListener("contextmenu", (event) => event.preventDefault());
  }

  #pad() {
    const has = (words) => this.sets.some((set) => set.size === words.length && words.every((word) => set.has(word)));
    const number = (words) =>
      this.sets.findIndex((set) => set.size === words.length && words.every((word) => set.has(word)));
    const grid = document.createElement("div");
    grid.className = "grid";
    let rows = PAD;
    const vertical = ["up", "down"].some((word) => has([word]));
    if (!vertical) rows = PAD.slice(3, 6);
    for (const [name, sign] of rows) {
      const words = name ? name.split(" ") : [];
      if (!name || !has(words)) {
        grid.append(document.createElement("span"));
        continue;
      }
      const button = document.createElement("button");
      [button.textContent, button.dataset.action] = [sign, number(words)];
      button.setAttribute("aria-label", name);
      this.#hold(button, words);
      grid.append(button);
    }
    this.element.append(grid);
    if (this.sets.some((set) => set.has("fire"))) {
      const fire = document.createElement("button");
      [fire.className, fire.textContent] = ["fire", "fire"];
      this.#hold(fire, ["fire"]);
      this.element.append(fire);
    }
    const keys = document.createElement("p");
    keys.className = "keys";
    keys.textContent = this.lane === "dream" ? "arrow keys" : "W A S D";
    if (this.sets.some((set) => set.has("fire"))) keys.textContent += this.lane === "dream" ? ", space" : ", F";
    this.element.append(keys);
  }

  #buttons() {
    if (this.actions.names.length === 1) return; // nothing to choose
    const row = document.createElement("div");
    row.className = "choice";
    this.actions.names.forEach((name, action) => {
      const button = document.createElement("button");
      [button.textContent, button.dataset.action] = [name, action];
      button.addEventListener("click", () => this.do(action));
      row.append(button);
    });
    this.element.append(row);
  }

  #rows() {
    const { kind, sizes, low, high } = this.actions;
    const now = this.rest();
    const put = (i, value) => {
      now.splice(0, now.length, ...(this.last ? JSON.parse(this.last) : this.rest()));
      now[i] = value;
      this.do([...now]);
    };
    (kind === "box" ? low : sizes).forEach((first, i) => {
      const row = document.createElement("div");
      row.className = "row";
      const label = document.createElement("label");
      label.textContent = i + 1;
      row.append(label);
      if (kind === "box" || first > MOST_BUTTONS) {
        const slider = document.createElement("input");
        [slider.type, slider.min, slider.max] = ["range", kind === "box" ? first : 0, kind === "box" ? high[i] : first - 1];
        slider.step = kind === "box" ? (high[i] - first) / 200 : 1;
        slider.value = now[i];
        slider.dataset.place = i;
        slider.setAttribute("aria-label", `Number ${i + 1} of the action`);
        slider.addEventListener("input", () => put(i, Number(slider.value)));
        slider.addEventListener("dblclick", () => put(i, this.rest()[i]));
        row.append(slider);
      } else {
        const choice = document.createElement("div");
        choice.className = "choice";
        for (let value = 0; value < first; value++) {
          const button = document.createElement("button");
          [button.textContent, button.dataset.place, button.dataset.value] = [value, i, value];
          button.addEventListener("click", () => put(i, value));
          choice.append(button);
        }
        row.append(choice);
      }
      this.element.append(row);
    });
  }
}
