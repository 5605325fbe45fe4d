// The page: shows what the dreams' source sends, and sends what the visitor wants.

import { Actions } from "./actions.js";
import { hasObject, NOBODY, Panel, paint } from "./panel.js";
import { connect } from "./source.js";
import { Timeline } from "./timeline.js";

const $ = (id) => document.getElementById(id);
const LOOKS = { frame: "Frame", owners: "Owners", outlines: "Outlines" };
const UNCERTAINTY = {
  error: { most: 10, text: (value) => `about ${value.toFixed(1)} pixels off` },
  unexplained: { most: 1, text: (value) => `${(100 * value).toFixed(0)} % unexplained` },
  doubt: { most: 0.5, text: (value) => `${(100 * value).toFixed(0)} % in doubt` },
};
const KEYS = {
  Space: "play", KeyP: "play", Comma: "back", Period: "step", KeyN: "new", KeyR: "again", KeyZ: "undo", KeyK: "keep",
  KeyB: "branch",
}; // prettier-ignore

let facts, source, timeline, picture, look;
const panels = new Map();
const pads = new Map();
const kept = [];
let resumes = false; // whether a drag has stopped time
let follows = "own"; // what is done in the branch: its own keys, "same", or an action
let wantsReal = null; // whether reality is asked for, until it is there
let waiting = null; // a key's action and when it was pressed, until its picture is shown
const held = new Set(); // keys that are down
const latencies = [], shown = [];
/** For whoever looks on: tests, and the browser's console. */
window.rnem = { latencies, shown, get picture() { return picture; }, send: (command) => send(command) }; // prettier-ignore

function send(command) {
  source?.send(command);
}

function start(given) {
  facts = given;
  document.title = `${facts.world} · rnem-world`;
  $("world").textContent = facts.world;
  const [height, width, channels] = facts.frame;
  const kinds = { 1: facts.binary ? "black and white" : "grey", 3: "in colour" };
  $("about").textContent =
    `a learned world: ${width} × ${height}, ${kinds[channels] ?? `${channels} channels`}, ` +
    `${facts.slots} slots, imagined ${facts.way === "latent" ? "without drawing" : "in pixels"}`;
  timeline = new Timeline($("timeline"), (time) => send({ type: "seek", time }));
  look = facts.binary ? "owners" : "outlines";
  for (const [name, label] of Object.entries(LOOKS)) {
    const button = document.createElement("button");
    [button.textContent, button.dataset.look] = [label, name];
    button.setAttribute("role", "radio");
    button.addEventListener("click", () => setLook(name));
    $("look").append(button);
  }
  setLook(look);
  for (const rate of facts.rates) $("rate").append(new Option(`${rate} / s`, rate, false, rate === facts.fps));
  if (facts.real === false) $("real").parentElement.hidden = true;
  addPad("dream");
  for (let slot = 0; slot < facts.slots; slot++) $("objects").append(objectRow(slot));
  showKeys();
  $("veil").hidden = true;
  send({ type: "play", on: true });
}

function setLook(name) {
  look = name;
  for (const button of $("look").children) button.setAttribute("aria-checked", String(button.dataset.look === name));
  redraw();
}

function addPad(lane) {
  const pad = new Actions(facts, lane, (action) => {
    send({ type: "act", lane, action });
    if (lane === "dream") waiting = { action: JSON.stringify(action), since: performance.now() };
    if (lane === "dream" && follows === "same" && pads.has("branch")) {
      pads.get("branch").show(action);
      send({ type: "act", lane: "branch", action });
    }
  });
  pads.set(lane, pad);
  for (const code of held) pad.key(code, true);
  const box = document.createElement("div");
  box.className = "pad-box";
  box.dataset.lane = lane;
  if (lane === "branch") box.append(followChoice(pad));
  box.append(pad.element);
  $("pads").append(box);
}

/** What is done in the branch. */
function followChoice(pad) {
  const choice = document.createElement("select");
  choice.setAttribute("aria-label", "What is done in the other dream");
  choice.append(new Option("What if you did otherwise?", "own"), new Option("What if all else were the same?", "same"));
  if (facts.actions.kind === "discrete" && facts.actions.names.length <= 32)
    facts.actions.names.forEach((name, action) => choice.append(new Option(`What if: ${name}`, action)));
  choice.value = follows;
  choice.addEventListener("change", () => {
    follows = choice.value;
    choice.blur();
    if (follows === "same") pad.do(JSON.parse(pads.get("dream").last ?? JSON.stringify(pad.rest())));
    else pad.do(follows === "own" ? pad.rest() : Number(follows));
  });
  return choice;
}

function objectRow(slot) {
  const row = document.createElement("li");
  row.innerHTML = "<i></i><b></b><span></span><button>remove</button>";
  row.querySelector("i").style.background = `rgb(${facts.colours[slot].join(" ")})`;
  row.querySelector("b").textContent = slot + 1;
  row.querySelector("button").addEventListener("click", () => touched.remove("dream", slot));
  row.addEventListener("pointerenter", () => hover(slot));
  row.addEventListener("pointerleave", () => hover(NOBODY));
  return row;
}

function hover(slot) {
  for (const panel of panels.values()) panel.hovered = slot;
  redraw();
}

const touched = {
  remove(lane, slot) {
    send({ type: "remove", lane, slot });
    toast(`Object ${slot + 1} was removed.`, true);
  },
  place(lane, slot, x, y, copy) {
    send({ type: "place", lane, slot, x, y, copy });
    toast(copy ? `Object ${slot + 1} was copied.` : `Object ${slot + 1} was moved.`, true);
  },
  exchange(lane, first, second) {
    send({ type: "exchange", lane, first, second });
    toast(`Objects ${first + 1} and ${second + 1} have changed places.`, true);
  },
  grab() {
    resumes = picture.playing;
    if (resumes) send({ type: "play", on: false });
  },
  drop() {
    if (resumes) send({ type: "play", on: true });
    resumes = false;
  },
  hover,
};

let toasting;
function toast(text, undo = false) {
  $("toast").textContent = text;
  if (undo) {
    const button = document.createElement("button");
    button.textContent = "Undo";
    button.addEventListener("click", () => click("undo"));
    $("toast").append(" ", button);
  }
  $("toast").classList.add("up");
  clearTimeout(toasting);
  toasting = setTimeout(() => $("toast").classList.remove("up"), 4000);
}

function receive(given) {
  timeline.add(given);
  picture = given;
  redraw();
}

let drawing = false;
function redraw() {
  if (drawing || !picture) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

let drawn = 0;
function draw() {
  const names = picture.lanes.map((lane) => lane.name);
  for (const [name, panel] of panels)
    if (!names.includes(name)) {
      panel.element.remove();
      panels.delete(name);
    }
  for (const lane of picture.lanes) {
    if (!panels.has(lane.name)) {
      const panel = new Panel(lane.name, facts, touched);
      panels.set(lane.name, panel);
      $("panels").append(panel.element);
      $("panels").dataset.number = names.length; // before it is drawn: its size depends on it
    }
    panels.get(lane.name).draw(lane, look, $("attention").checked);
  }
  $("panels").dataset.number = panels.size;
  notes();
  timeline.draw(UNCERTAINTY[facts.uncertainty].most);
  controls();
  if (picture.picture === drawn) return;
  drawn = picture.picture;
  send({ type: "seen", picture: drawn });
  measure();
}

/** Says beside the other lanes how far they have gone from the dream. */
function notes() {
  const [dream, ...others] = picture.lanes;
  panels.get("dream").note(dream.replays ? "as it was" : "");
  for (const lane of others) {
    if (lane.name === "real") {
      let same = 0, any = 0;
      for (let p = 0; p < lane.frame.length; p++) {
        const [a, b] = [lane.frame[p], dream.frame[p]];
        if (facts.binary ? a || b : true) {
          any++;
          same += Math.abs(a - b) < 62;
        }
      }
      panels.get("real").note(any ? `${((100 * same) / any).toFixed(0)} % as dreamt` : "");
    } else {
      const apart = lane.slots
        .map((slot, k) => [slot, dream.slots[k]])
        .filter(([a, b]) => hasObject(a) && hasObject(b))
        .map(([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]));
      const most = Math.max(0, ...apart);
      panels.get(lane.name).note(`${most.toFixed(1)} pixels apart`);
    }
  }
}

function controls() {
  const dream = picture.lanes[0];
  const branched = picture.lanes.some((lane) => lane.name === "branch");
  document.body.classList.toggle("playing", picture.playing);
  $("undo").disabled = !picture.undo;
  $("back").disabled = picture.time <= picture.first;
  $("branch").setAttribute("aria-pressed", String(branched));
  $("adopt").hidden = !branched;
  const real = picture.lanes.some((lane) => lane.name === "real");
  if (real === wantsReal) wantsReal = null;
  $("real").checked = wantsReal ?? real;
  if (branched && !pads.has("branch")) addPad("branch");
  if (!branched && pads.has("branch")) {
    pads.delete("branch");
    $("pads").querySelector("[data-lane=branch]").remove();
  }
  if (document.activeElement !== $("rate")) $("rate").value = picture.fps;
  const measure = UNCERTAINTY[facts.uncertainty];
  $("uncertainty").firstElementChild.style.width = `${Math.min(100, (100 * dream.uncertainty) / measure.most)}%`;
  $("uncertainty").lastElementChild.textContent = measure.text(dream.uncertainty);
  dream.slots.forEach((slot, k) => {
    const row = $("objects").children[k];
    const there = hasObject(slot);
    row.classList.toggle("empty", !there);
    const reward = Math.abs(slot[3]) > 0.05 ? `, reward ${slot[3].toFixed(2)}` : "";
    row.querySelector("span").textContent = there ? `${slot[2].toFixed(0)} pixels${reward}` : "empty";
  });
  const lanes = picture.lanes.map(({ name }) => `<b class="${name}"></b>`).join("");
  if ($("legend").dataset.lanes !== lanes) {
    $("legend").dataset.lanes = lanes;
    const words = { dream: "return of the dream", branch: "of the other dream", real: "of reality" };
    $("legend").innerHTML =
      picture.lanes.map(({ name }) => `<span class="${name}">${words[name]}</span>`).join("") +
      '<span class="doubt">uncertainty</span><span class="steps"></span>';
  }
  $("legend").querySelector(".steps").textContent = `step ${picture.time}`;
}

function measure() {
  const now = performance.now();
  shown.push(now);
  while (shown.length && shown[0] < now - 2000) shown.shift();
  if (waiting && JSON.stringify(picture.lanes[0].action) === waiting.action) {
    latencies.push(now - waiting.since);
    if (latencies.length > 500) latencies.shift();
    waiting = null;
  }
  const recent = latencies.slice(-20).sort((a, b) => a - b);
  const rate = shown.length > 1 ? ((shown.length - 1) * 1000) / (now - shown[0]) : 0;
  $("rate-shown").textContent = picture.playing ? `${rate.toFixed(0)} frames / s` : "paused";
  $("delay-shown").textContent = recent.length ? `${recent[recent.length >> 1].toFixed(0)} ms` : "";
}

const does = {
  play: () => send({ type: "play", on: !picture.playing }),
  back: () => send({ type: "seek", time: picture.time - 1 }),
  step: () => send({ type: "step" }),
  new() {
    send({ type: "begin" });
    send({ type: "play", on: true });
  },
  again() {
    send({ type: "begin", seed: picture.seed });
    send({ type: "play", on: true });
  },
  undo: () => send({ type: "undo" }),
  branch() {
    follows = "own";
    send({ type: "branch", on: !panels.has("branch") });
  },
  adopt: () => send({ type: "branch", on: false, keep: true }),
  keep() {
    const number = kept.findIndex((each) => !each);
    const free = number < 0 ? kept.length : number;
    if (free >= facts.kept) return toast(`At most ${facts.kept} moments can be kept: click one with the right button to drop it.`);
    send({ type: "keep", number: free });
    kept[free] = { time: picture.time, epoch: picture.epoch };
    keepThumbnail(free);
  },
};

function keepThumbnail(number) {
  const [height, width] = facts.frame;
  const button = document.createElement("button");
  button.title = "Go back to this moment (right button: drop it)";
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  paint(picture.lanes[0], facts, look === "outlines" ? "frame" : look, image.data);
  context.putImageData(image, 0, 0);
  button.append(canvas, `step ${picture.time}`);
  button.addEventListener("click", () => send({ type: "return", number }));
  button.addEventListener("contextmenu", (event) => {
    event.preventDefault();
    button.remove();
    delete kept[number];
    timeline.kept = kept.filter(Boolean);
    redraw();
  });
  $("kept").append(button);
  timeline.kept = kept.filter(Boolean);
  redraw();
}

function click(name) {
  if (picture) does[name]();
}

function showKeys() {
  const fires = facts.actions.kind === "discrete" && facts.actions.names.some((name) => name.includes("fire"));
  const rows = {
    "← ↑ → ↓": "act in the dream", "W A S D": "act in the other dream", [fires ? "P" : "space, P"]: "play, pause",
    ", .": "one step back, on", B: "what if?", K: "keep this moment", Z: "undo", "N, R": "a new dream, this one again",
  }; // prettier-ignore
  $("keys").innerHTML = Object.entries(rows).map(([key, text]) => `<dt>${key}</dt><dd>${text}</dd>`).join("");
}

function onKey(event, down) {
  if (!facts || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target instanceof HTMLSelectElement) return;
  if (event.target instanceof HTMLInputElement && event.target.type === "range") return;
  if (down) held.add(event.code);
  else held.delete(event.code);
  const acted = [...pads.values()].some((pad) => pad.key(event.code, down));
  if (acted) {
    event.preventDefault();
    if (down && document.activeElement instanceof HTMLButtonElement) document.activeElement.blur();
  } else if (down && !event.repeat && KEYS[event.code] && !(event.code === "Space" && event.target !== document.body)) {
    event.preventDefault();
    click(KEYS[event.code]);
  }
}

for (const name of Object.keys(does)) $(name).addEventListener("click", () => click(name));
$("real").addEventListener("change", () => {
  wantsReal = $("real").checked;
  $("real").blur();
  send({ type: "real", on: wantsReal });
  send({ type: "play", on: true });
});
$("rate").addEventListener("change", () => {
  send({ type: "speed", fps: Number($("rate").value) });
  $("rate").blur();
});
$("attention").addEventListener("change", redraw);
window.addEventListener("keydown", (event) => onKey(event, true));
window.addEventListener("keyup", (event) => onKey(event, false));
window.addEventListener("blur", () => {
  held.clear();
  pads.forEach((pad) => pad.release());
});
window.addEventListener("resize", redraw);

source = await connect({
  hello: (given) => queueMicrotask(() => start(given)),
  picture: (given) => queueMicrotask(() => receive(given)),
  refused(reason) {
    toast(reason);
    wantsReal = null;
    redraw(); // what was ticked or pressed shows how things stand
  },
  closed(reason) {
    $("veil-text").textContent = reason;
    $("veil").hidden = false;
  },
});
