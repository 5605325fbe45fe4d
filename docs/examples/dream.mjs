// A dream without Python: node dream.mjs FOLDER, a folder of `rnem-world export RUN --out FOLDER --onnx`.
// Watches two squares that move towards one another, then imagines 10 frames, and prints what it sees of them.
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";

const folder = process.argv[2];
const { frame: [height, width], slots, graphs } = JSON.parse(await readFile(`${folder}/graphs.json`));
const weights = await readFile(`${folder}/model.safetensors`);
const load = async (name) =>
  ort.InferenceSession.create(await readFile(`${folder}/${name}.onnx`), {
    externalData: [{ path: "model.safetensors", data: weights }],
  });
const [observe, encode, step, draw] = await Promise.all(["observe", "encode", "latent_step", "draw"].map(load));

const floats = (data, dims) => new ort.Tensor("float32", Float32Array.from(data), dims);
const filled = (value, dims) => floats(new Array(dims.reduce((a, b) => a * b)).fill(value), dims);
const video = (t) => {
  const pixels = new Array(height * width).fill(0);
  for (const left of [4 + t / 2, width - 10 - t / 2])
    for (let y = 12; y < 18; y++) for (let x = 0; x < 6; x++) pixels[y * width + Math.round(left) + x] = 1;
  return floats(pixels, [1, 1, height, width]);
};

// Empty slots, with responsibilities that differ a little: else all would do the same.
const actions = new ort.Tensor("int64", [0n], [1]);
let theta = filled(0, [1, slots, graphs.latent_step.inputs.theta[2]]);
let prediction = filled(0, [1, slots, 1, height, width]);
const noise = Array.from({ length: slots * height * width }, (_, i) => Math.abs(Math.sin(i * 12.9898) * 43758.5453 % 1));
const total = Array.from({ length: height * width }, (_, p) => noise.reduce((s, n, i) => s + (i % (height * width) === p ? n : 0), 0));
let gamma = floats(noise.map((n, i) => n / total[i % (height * width)]), [1, slots, 1, height, width]);
let previous = filled(0, [1, 1, height, width]);
let output;
for (let t = 0; t < 15; t++) {
  const seen = await observe.run({ theta, prediction, gamma, previous, frame: video(t), actions, following: video(t + 1) });
  [theta, prediction, gamma, output] = [seen.next_theta, seen.next_prediction, seen.next_gamma, seen.next_output];
  previous = video(t);
}
let { code } = await encode.run({ prediction, gamma, previous, frame: video(15) });
for (let t = 0; t < 10; t++) {
  const dreamt = await step.run({ theta, code, actions });
  [theta, code, output] = [dreamt.next_theta, dreamt.next_code, dreamt.next_output];
  const { frame } = await draw.run({ output });
  const reward = dreamt.rewards.data.reduce((a, b) => a + b);
  console.log(`step ${t + 1}: ${frame.data.reduce((a, b) => a + b)} white pixels, reward ${reward.toFixed(3)}`);
}
