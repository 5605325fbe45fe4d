// Dreams that the visitor's own browser computes, in a folder that `rnem-world export --web` wrote: the same commands as
// to a server, and the same pictures from it. There is no real environment here.

import { Graphs, Refusal, viewOf } from "./graphs.js";

const HISTORY = 900, FORGOTTEN = 50, PAST_STEPS = 6, MOST_UNDONE = 16, MOST_UNSEEN = 4;

export async function connect(listener) {
  const visit = new Visit(listener);
  visit.open().catch((error) => listener.closed(`The world can't be loaded: ${error.message}`));
  return { send: (command) => visit.send(command) };
}

class Visit {
  constructor(listener) {
    this.listener = listener;
    this.commands = [];
    this.kept = new Map();
    this.playing = false;
    this.steps = this.sent = this.seen = this.epoch = this.next = 0;
  }

  async open() {
    this.graphs = await Graphs.load(document.baseURI);
    this.facts = this.graphs.facts;
    this.fps = this.facts.fps;
    this.begin(0);
    this.listener.hello(this.facts);
    await this.show();
    this.wake();
  }

  send(command) {
    if (command.type === "seen") this.seen = command.picture;
    else this.commands.push(command);
    if (this.graphs) this.wake();
  }

  /** Makes turns, one after the other, as long as there is something to do. */
  async wake() {
    if (this.busy) return;
    this.busy = true;
    clearTimeout(this.timer);
    try {
      while (await this.turn());
    } finally {
      this.busy = false;
    }
    if (this.playing && this.sent - this.seen < MOST_UNSEEN)
      this.timer = setTimeout(() => this.wake(), Math.max(this.next - performance.now(), 0));
  }

  async turn() {
    const commands = this.commands.splice(0);
    for (const command of commands) {
      try {
        await this.follow(command);
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        this.listener.refused(error.message);
      }
    }
    const now = performance.now();
    const due = this.playing && now >= this.next - 1 && this.sent - this.seen < MOST_UNSEEN;
    if (!due && !this.steps && !commands.length) return false;
    if (due || this.steps) {
      const period = 1000 / this.fps;
      this.next = Math.max(this.next + period, now + 1);
      if (this.next < now - 5 * period || this.next > now + period) this.next = now + period;
      await this.goOn();
    }
    await this.show();
    return this.commands.length > 0;
  }

  begin(seed) {
    this.seed = seed;
    const state = (this.begun = this.graphs.begin(seed));
    this.liveOn(lane([moment(state)], this.graphs.nothing()), 0);
  }

  liveOn(dream, time) {
    this.lanes = { dream };
    this.now = dream.moments.length - 1;
    this.first = time - this.now;
    this.undone = [];
    this.epoch++;
  }

  get last() {
    return Math.min(...Object.values(this.lanes).map(({ moments }) => moments.length)) - 1;
  }

  get ended() {
    return Object.values(this.lanes).every(({ moments }) => moments[this.now].ended);
  }

  lane(name = "dream") {
    if (!this.lanes[name]) throw new Refusal("There is no second dream: branch one first.");
    return this.lanes[name];
  }

  goTo(time) {
    this.now = Math.min(Math.max(time - this.first, 0), this.last);
    this.playing = false;
  }

  async follow(command) {
    switch (command.type) {
      case "act": {
        const acted = this.lane(command.lane);
        [acted.action, acted.replays] = [command.action, false];
        return;
      }
      case "play":
        this.playing = command.on && !this.ended;
        return;
      case "step":
        [this.playing, this.steps] = [false, 1];
        return;
      case "speed":
        this.fps = command.fps;
        return;
      case "seek":
        return this.goTo(command.time);
      case "begin":
        return this.begin(command.seed ?? Math.floor(Math.random() * 2 ** 31));
      case "remove":
      case "place":
      case "exchange":
        return this.change(this.lane(command.lane), command);
      case "undo":
        return this.undo();
      case "branch":
        return this.branch(command);
      case "keep":
        this.kept.set(command.number, [this.first + this.now, until(this.lanes.dream, this.now, PAST_STEPS)]);
        return;
      case "return": {
        const found = this.kept.get(command.number);
        if (!found) throw new Refusal("That moment was not kept.");
        const [time, kept] = found;
        this.liveOn(until(kept, kept.moments.length - 1), time);
        this.playing = false;
        return;
      }
      default:
        throw new Refusal("There is no reality here: rnem-world play shows it.");
    }
  }

  async change(changed, command) {
    const here = changed.moments[this.now];
    let state;
    if (command.type === "remove") state = await this.graphs.remove(here.state, command.slot, this.begun);
    else if (command.type === "place") {
      const { slot, x, y, copy = true } = command;
      state = await this.put(changed, [{ slot, to: copy ? await this.graphs.free(here.state) : slot, x, y }]);
    } else {
      const { first, second } = command;
      const { centres } = await this.graphs.draw(here.state);
      const [[ax, ay], [bx, by]] = [centres[first], centres[second]];
      state = await this.put(changed, [
        { slot: first, to: first, x: bx, y: by },
        { slot: second, to: second, x: ax, y: ay },
      ]);
    }
    const before = [changed.moments.slice(this.now), changed.totals.slice(this.now)];
    this.undone = [...this.undone.slice(1 - MOST_UNDONE), [changed, this.first + this.now, ...before]];
    cut(changed, this.now);
    changed.moments[this.now] = { ...here, state, changed: true, memory: null };
  }

  put(changed, puts) {
    const begin = Math.max(this.now - PAST_STEPS, 0);
    let past = changed.moments.slice(begin, this.now + 1);
    const breaks = past.map((each) => each.action === null || each.changed).lastIndexOf(true);
    past = past.slice(Math.max(breaks, 0)); // what was before a change didn't lead here by actions alone
    const actions = past.slice(1).map(({ action }) => action);
    return this.graphs.put(past.map(({ state }) => state), actions, puts);
  }

  undo() {
    const last = this.undone.pop();
    if (!last) throw new Refusal("Nothing was changed that could be taken back.");
    const [changed, time, moments, totals] = last;
    const index = time - this.first;
    const there = Object.values(this.lanes).includes(changed) && index >= 0 && index < changed.moments.length;
    if (!there) throw new Refusal("The change is too long ago to be taken back.");
    changed.moments.splice(index, Infinity, ...moments);
    changed.totals.splice(index, Infinity, ...totals);
    this.goTo(time);
  }

  branch({ on, keep = false }) {
    const { dream, branch } = this.lanes;
    if (on) {
      dream.replays = dream.moments.length > this.now + 1;
      this.lanes = { dream, branch: until(dream, this.now) };
    } else this.lanes = { dream: keep && branch ? branch : dream };
    this.now = Math.min(this.now, this.last);
  }

  async goOn() {
    this.steps = 0;
    if (this.ended) {
      this.playing = false;
      return;
    }
    if (this.now >= HISTORY + FORGOTTEN) {
      for (const each of Object.values(this.lanes)) [each.moments, each.totals].forEach((list) => list.splice(0, FORGOTTEN));
      [this.now, this.first] = [this.now - FORGOTTEN, this.first + FORGOTTEN];
    }
    for (const each of Object.values(this.lanes)) {
      each.replays &&= each.moments.length > this.now + 1;
      if (each.replays) continue;
      cut(each, this.now);
      const before = each.moments[this.now];
      let after = { ...before, reward: 0 };
      if (!before.ended) {
        const { state, rewards, attention, ended } = await this.graphs.imagine(before.state, each.action);
        const reward = rewards.reduce((sum, value) => sum + value, 0);
        after = { ...moment(state), action: each.action, reward, ended, rewards, attention, before };
      }
      each.moments.push(after);
      each.totals.push(each.totals[each.totals.length - 1] + after.reward);
    }
    this.now++;
  }

  async show() {
    const lanes = [];
    for (const [name, each] of Object.entries(this.lanes)) {
      const here = each.moments[this.now];
      const picture = await this.graphs.draw(here.state);
      const { doubt, ...view } = viewOf(this.facts, picture, here.rewards);
      const { action, reward, ended, attention, changed } = here;
      const uncertainty = this.uncertainty(here, picture, doubt);
      const none = Array.from({ length: this.facts.slots }, () => Array(this.facts.slots).fill(0));
      lanes.push({
        name, action, reward, ended, changed, replays: each.replays, total: each.totals[this.now], uncertainty,
        attention: this.facts.attends ? (attention ?? none) : null, ...view,
      }); // prettier-ignore
    }
    this.sent++;
    const { epoch, first, playing, fps, seed } = this;
    const time = first + this.now, last = first + this.last;
    const header = { picture: this.sent, epoch, time, first, last, playing, fps, seed, undo: this.undone.length > 0 };
    this.listener.picture({ ...header, lanes });
  }

  /** As rnem_world.envs.uncertainty: signs that add up since the dream began, looked up in the calibration. */
  uncertainty(here, picture, doubt) {
    if (this.facts.uncertainty === "doubt") return doubt;
    const { slots, frame: [height, width, channels] } = this.facts;
    const { prediction, frame, masses } = picture;
    let white = 0, unexplained = 0, doubled = 0;
    const size = height * width * channels;
    for (let p = 0; p < size; p++) {
      let first = 0, second = 0;
      for (let k = 0; k < slots; k++) {
        const mean = prediction[k * size + p];
        if (mean > first) [first, second] = [mean, first];
        else if (mean > second) second = mean;
      }
      white += frame[p];
      unexplained += Math.abs(first - frame[p]);
      doubled += second;
    }
    [unexplained, doubled] = [unexplained / Math.max(white, 1), doubled / Math.max(white, 1)];
    if (!this.facts.calibration) return unexplained;
    const before = here.before?.memory;
    here.memory ??= before
      ? { sums: [before.sums[0] + unexplained, before.sums[1] + doubled], masses: before.masses }
      : { sums: [0, 0], masses };
    delete here.before; // else every moment would hold all before it
    const all = here.memory.masses.reduce((sum, mass) => sum + mass, 0);
    const lost = here.memory.masses.reduce((sum, mass, k) => sum + Math.abs(masses[k] - mass), 0) / Math.max(all, 1);
    const { weights, knots, errors } = this.facts.calibration;
    const total = weights[0] * here.memory.sums[0] + weights[1] * here.memory.sums[1] + weights[2] * lost;
    const inside = Math.min(Math.max(total, knots[0]), knots[knots.length - 1]);
    const right = Math.min(Math.max(knots.findIndex((knot) => knot >= inside), 1), knots.length - 1);
    const share = (inside - knots[right - 1]) / (knots[right] - knots[right - 1]);
    return errors[right - 1] + share * (errors[right] - errors[right - 1]);
  }
}

function moment(state) {
  return { state, action: null, reward: 0, ended: false, changed: false, rewards: null, attention: null, memory: null };
}

function lane(moments, action) {
  return { moments, totals: [0], action, replays: false };
}

function until({ moments, totals, action }, index, most = Infinity) {
  const begin = Math.max(index - most, 0);
  return {
    moments: moments.slice(begin, index + 1),
    totals: totals.slice(begin, index + 1),
    action,
    replays: false,
  };
}

function cut(each, index) {
  each.moments.length = each.totals.length = index + 1;
}
