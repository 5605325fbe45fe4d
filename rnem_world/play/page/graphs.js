// A world's graphs, run by ONNX Runtime in the browser: steps, pictures, and objects put elsewhere. One dream at a time.

import { NOBODY } from "./panel.js";

const LEAST_MASS = 5; // pixels below which a slot is empty
const PAST_STEPS = 6, FEWEST_STEPS = 3, STILL_STEPS = 4, FARTHEST = 0.15; // as in rnem_world.envs.placing

/** A command that can't be followed; its message is shown. */
export class Refusal extends Error {}

export class Graphs {
  /** Loads what `rnem-world export --web` wrote beside this page. */
  static async load(base) {
    const graphs = new Graphs();
    const fetched = async (name) => {
      const answer = await fetch(new URL(name, base));
      if (!answer.ok) throw new Error(`${name} can't be loaded (${answer.status})`);
      return answer;
    };
    const world = (graphs.world = await (await fetched("world.json")).json());
    const runtime = new URL(world.runtime, base);
    const ort = (graphs.ort = await import(new URL("ort.wasm.min.mjs", runtime)));
    ort.env.wasm.wasmPaths = runtime.href;
    ort.env.wasm.numThreads = 1;
    const bytes = async (name) => new Uint8Array(await (await fetched(name)).arrayBuffer());
    const [weights, starts] = await Promise.all([bytes("model.safetensors"), bytes("starts.bin")]);
    graphs.starts = new Float32Array(starts.buffer);
    graphs.sessions = {};
    const step = world.facts.way === "latent" ? "latent_step" : "pixels_step";
    for (const name of [step, "draw", "observe", "encode"]) {
      const externalData = [{ path: "model.safetensors", data: weights }];
      graphs.sessions[name] = await ort.InferenceSession.create(await bytes(`${name}.onnx`), { externalData });
    }
    graphs.step = step;
    return graphs;
  }

  get facts() {
    return this.world.facts;
  }

  /** Begins a dream where one of the stored ones does. */
  begin(number) {
    const { sizes, states } = this.world.starts;
    const all = Object.values(sizes).reduce((sum, size) => sum + size, 0);
    let offset = (number % states) * all;
    const state = {};
    for (const [name, size] of Object.entries(sizes)) {
      state[name] = this.starts.slice(offset, offset + size);
      offset += size;
    }
    return state;
  }

  /** Imagines a step: the state after it, each slot's reward, attention, and whether it ended. */
  async imagine(state, action) {
    const found = await this.#run(this.step, { ...this.#inputs(state), actions: this.#actions(action) });
    const { next_theta, next_output, next_code, next_frame, rewards, termination, attention } = found;
    const after = { theta: next_theta.data, output: next_output.data, code: next_code.data };
    if (next_frame) after.frame = next_frame.data;
    return {
      state: after,
      rewards: rewards.data,
      ended: termination.data[0] > 0,
      attention: attention ? this.#matrix(attention.data) : null,
    };
  }

  /** Draws a state: what slots predict, the frame, responsibilities, and where objects are. */
  async draw(state) {
    const { slots, frame: [height, width], binary } = this.facts;
    const output = this.#tensor(state.output, [1, slots, state.output.length / slots]);
    const found = await this.#run("draw", { output });
    const [prediction, frame, gamma] = [found.prediction.data, found.frame.data, found.gamma.data];
    const pixels = height * width;
    const maps = prediction.length / pixels / slots;
    const masses = new Float64Array(slots), centres = [];
    for (let k = 0; k < slots; k++) {
      let mass = 0, left = 0, top = 0;
      for (let p = 0; p < pixels; p++) {
        let weight = gamma[k * pixels + p];
        if (binary) {
          let brightest = 0;
          for (let c = 0; c < maps; c++) brightest = Math.max(brightest, prediction[(k * maps + c) * pixels + p]);
          weight *= brightest;
        }
        mass += weight;
        left += weight * ((p % width) + 0.5);
        top += weight * (Math.floor(p / width) + 0.5);
      }
      masses[k] = mass;
      centres.push(mass > 0 ? [left / mass, top / mass] : [width / 2, height / 2]);
    }
    return { prediction, frame, gamma, masses, centres, maps };
  }

  /** Takes an object out: its slot becomes a copy of an empty one, now or at the beginning. */
  async remove(state, slot, begun) {
    let { masses } = await this.draw(state);
    let source = state, empty = emptiest(masses, slot);
    if (masses[empty] > LEAST_MASS) {
      ({ masses } = await this.draw((source = begun)));
      empty = emptiest(masses, -1);
    }
    if (masses[empty] > LEAST_MASS) throw new Refusal("No slot is empty, which a removed object's becomes a copy of.");
    const edited = this.#copied(state);
    for (const name of ["theta", "output", "code"]) this.#write(edited[name], slot, source[name], empty);
    return this.#redrawn(state, edited);
  }

  /** Finds a slot without an object. */
  async free(state) {
    const { masses } = await this.draw(state);
    const slot = emptiest(masses, -1);
    if (masses[slot] >= LEAST_MASS) throw new Refusal(`All ${masses.length} slots have an object: remove one first.`);
    return slot;
  }

  /** Puts objects elsewhere, as rnem_world.envs.placing does: {slot, to, x, y} each. */
  async put(past, actions, puts) {
    const now = past[past.length - 1];
    const picture = await this.draw(now);
    const shifts = puts.map(({ slot, x, y }) => {
      if (picture.masses[slot] < LEAST_MASS) throw new Refusal("There is no object to put anywhere.");
      const [cx, cy] = picture.centres[slot];
      return [Math.floor(x - cx + 0.5), Math.floor(y - cy + 0.5)];
    });
    const attempts = [];
    if (actions.length >= FEWEST_STEPS) attempts.push([past.slice(-PAST_STEPS - 1), actions.slice(-PAST_STEPS)]);
    const nothing = this.nothing();
    attempts.push([Array(STILL_STEPS + 1).fill(now), Array(STILL_STEPS).fill(nothing)]);
    for (const [states, done] of attempts) {
      const edited = await this.#watched(states, done, puts, shifts);
      if (await this.#hits(picture, edited, puts)) return edited;
    }
    throw new Refusal("The world can't imagine that object there: choose a place where it has seen such objects.");
  }

  /** What is done while nobody does anything. */
  nothing() {
    const { kind, low, high, sizes } = this.facts.actions;
    if (kind === "discrete") return 0;
    return kind === "box" ? low.map((least, i) => Math.min(Math.max(0, least), high[i])) : sizes.map(() => 0);
  }

  async #watched(states, actions, puts, shifts) {
    const doctored = [];
    for (const state of states) doctored.push(this.#doctored(await this.draw(state), puts, shifts));
    let theta = states[0].theta.slice();
    for (const { slot, to } of puts) this.#write(theta, to, states[0].theta, slot);
    let previous = doctored[0].frame, output = null;
    for (let step = 0; step < actions.length; step++) {
      const [before, after] = [doctored[step], doctored[step + 1]];
      const seen = this.#seen(theta, before, previous);
      const following = this.#frame(after.frame);
      const found = await this.#run("observe", { ...seen, following, actions: this.#actions(actions[step]) });
      output = found.next_output.data;
      theta = states[step + 1].theta.slice(); // the others did what they did: they see nothing of this
      for (const { to } of puts) this.#write(theta, to, found.next_theta.data, to);
      previous = before.frame;
    }
    const last = doctored[doctored.length - 1], now = states[states.length - 1];
    const { code } = await this.#run("encode", this.#seen(theta, last, previous));
    const edited = this.#copied(now);
    edited.theta = theta;
    for (const { to } of puts) {
      this.#write(edited.output, to, output, to);
      this.#write(edited.code, to, code.data, to);
    }
    if (now.frame) edited.frame = (await this.draw(edited)).frame;
    return edited;
  }

  /** Draws a picture once more, with objects where they are to be. */
  #doctored({ prediction, frame, gamma, maps }, puts, shifts) {
    const { frame: [height, width, channels], slots, binary } = this.facts;
    const pixels = height * width;
    const made = { prediction: prediction.slice(), frame: frame.slice(), gamma: gamma.slice() };
    const shows = (p) => {
      if (!binary) return true;
      for (let c = 0; c < channels; c++) if (frame[c * pixels + p] > 0.5) return true;
      return false;
    };
    puts.forEach(({ slot, to }, i) => {
      const [dx, dy] = shifts[i];
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++) {
          const [u, v] = [Math.min(Math.max(x - dx, 0), width - 1), Math.min(Math.max(y - dy, 0), height - 1)];
          const p = y * width + x, from = v * width + u;
          const inside = u === x - dx && v === y - dy;
          const covered = inside && gamma[slot * pixels + from] > 0.5 && shows(from);
          if (covered) {
            for (let c = 0; c < channels; c++) made.frame[c * pixels + p] = frame[c * pixels + from];
            for (let k = 0; k < slots; k++) made.gamma[k * pixels + p] = 0;
          }
          made.gamma[to * pixels + p] = covered ? 1 : 0;
          for (let m = 0; m < maps; m++)
            made.prediction[(to * maps + m) * pixels + p] = prediction[(slot * maps + m) * pixels + from];
        }
    });
    return { ...made, maps };
  }

  async #hits(before, edited, puts) {
    const { masses, centres } = await this.draw(edited);
    const [height, width] = this.facts.frame;
    return puts.every(({ slot, to, x, y }) => {
      const [cx, cy] = centres[to];
      const near = Math.hypot(cx - x, cy - y) <= FARTHEST * Math.max(height, width);
      return near && masses[to] >= 0.5 * before.masses[slot];
    });
  }

  /** Slots that see motion remember the frame: where it has changed, it becomes what they draw now. */
  async #redrawn(state, edited) {
    if (!state.frame) return edited;
    const [before, after] = [await this.draw(state), await this.draw(edited)];
    edited.frame = state.frame.map((value, i) => (before.frame[i] === after.frame[i] ? value : after.frame[i]));
    return edited;
  }

  #copied(state) {
    const copy = { theta: state.theta.slice(), output: state.output.slice(), code: state.code.slice() };
    return state.frame ? { ...copy, frame: state.frame } : copy;
  }

  #write(values, slot, from, other) {
    const size = values.length / this.facts.slots;
    values.set(from.subarray(other * size, (other + 1) * size), slot * size);
  }

  #matrix(attention) {
    const { slots } = this.facts;
    return Array.from({ length: slots }, (_, i) =>
      Array.from({ length: slots }, (_, j) => (i === j ? 0 : attention[i * (slots - 1) + j - (j > i)])),
    );
  }

  #tensor(data, shape) {
    return new this.ort.Tensor("float32", data, shape);
  }

  #frame(data) {
    const { frame: [height, width, channels] } = this.facts;
    return this.#tensor(data, [1, channels, height, width]);
  }

  #inputs({ theta, code, frame }) {
    const { slots } = this.facts;
    const inputs = {
      theta: this.#tensor(theta, [1, slots, theta.length / slots]),
      code: this.#tensor(code, [1, slots, code.length / slots]),
    };
    if (frame) inputs.frame = this.#frame(frame);
    return inputs;
  }

  #seen(theta, { prediction, gamma, frame, maps }, previous) {
    const { slots, frame: [height, width] } = this.facts;
    return {
      theta: this.#tensor(theta, [1, slots, theta.length / slots]),
      prediction: this.#tensor(prediction, [1, slots, maps, height, width]),
      gamma: this.#tensor(gamma, [1, slots, 1, height, width]),
      previous: this.#frame(previous),
      frame: this.#frame(frame),
    };
  }

  #actions(action) {
    const list = Array.isArray(action) ? action : [action];
    const shape = Array.isArray(action) ? [1, list.length] : [1];
    if (this.facts.actions.kind === "box") return this.#tensor(Float32Array.from(list), shape);
    return new this.ort.Tensor("int64", BigInt64Array.from(list.map(BigInt)), shape);
  }

  /** Runs a graph with those of the inputs that it has. */
  async #run(name, given) {
    const session = this.sessions[name];
    return session.run(Object.fromEntries(session.inputNames.map((input) => [input, given[input]])));
  }
}

function emptiest(masses, except) {
  let found = -1;
  masses.forEach((mass, k) => {
    if (k !== except && (found < 0 || mass < masses[found])) found = k;
  });
  return found;
}

/** Makes of a picture what the page shows: bytes of the frame, who owns what, and the slots' rows. */
export function viewOf(facts, picture, rewards) {
  const { frame: [height, width, channels], slots, binary } = facts;
  const { frame, gamma, masses, centres } = picture;
  const pixels = height * width;
  const shown = new Uint8Array(pixels * channels);
  const owner = new Uint8Array(pixels), share = new Uint8Array(pixels);
  let doubt = 0, owned = 0;
  for (let p = 0; p < pixels; p++) {
    let most = -1, best = 0, sum = 0, on = false;
    for (let c = 0; c < channels; c++) {
      const value = Math.round(Math.min(Math.max(frame[c * pixels + p], 0), 1) * 255);
      shown[p * channels + c] = value;
      on ||= value > 0;
    }
    for (let k = 0; k < slots; k++) {
      const much = gamma[k * pixels + p];
      sum += much;
      if (much > most) [most, best] = [much, k];
    }
    const mine = binary ? on : most > 1 - sum;
    owner[p] = mine ? best : NOBODY;
    share[p] = Math.round(most * 255);
    if (mine) [doubt, owned] = [doubt + 1 - most, owned + 1];
  }
  const rows = centres.map(([x, y], k) => [x, y, masses[k], rewards ? rewards[k] : 0]);
  return { frame: shown, owner, share, slots: rows, doubt: doubt / Math.max(owned, 1) };
}
