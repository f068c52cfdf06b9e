// The state of the page: what a reader can change, how a change keeps it whole, and how it travels.
import { Refusal, check, stackGeometries } from "./convolution.js";

export const TUTORIAL = {
  title: "A convolution of ten samples with three taps",
  x: [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]],
  weight: [[[1, 1, 1]]],
  bias: null,
  stride: 1,
  dilation: 1,
  padding: [0, 0],
  padding_mode: "zeros",
  groups: 1,
  transposed: false,
  output_padding: 0,
  channel: 0,
  output: 0,
  pinned: false,
  tab: "window",
  layers: [
    { kernel_size: 2, stride: 1, dilation: 1, padding: "causal" },
    { kernel_size: 2, stride: 1, dilation: 2, padding: "causal" },
    { kernel_size: 2, stride: 1, dilation: 4, padding: "causal" },
  ],
  plan: "",
  about: "",
  lesson: null, // which of its stations is shown
};

const NAMES = Object.keys(TUTORIAL);
// What the output depends on.
export const NUMBERS = [
  "x",
  "weight",
  "bias",
  "stride",
  "dilation",
  "padding",
  "padding_mode",
  "groups",
  "transposed",
  "output_padding",
];
export const TABS = ["window", "channels", "gradient", "stack", "response", "code", "plan"];

export const copy = (value) => structuredClone(value);

// Numbers that JSON can't hold travel as words.
export function decoded(value) {
  if (Array.isArray(value)) return value.map(decoded);
  if (value === "nan" || value === "inf" || value === "-inf")
    return { nan: NaN, inf: Infinity, "-inf": -Infinity }[value];
  return value;
}

export function encoded(value) {
  if (Array.isArray(value)) return value.map(encoded);
  if (Number.isNaN(value)) return "nan";
  if (value === Infinity) return "inf";
  return value === -Infinity ? "-inf" : value;
}

// A state with some of it replaced, checked as a whole; throws a Refusal and changes nothing.
export function changed(state, partial) {
  if (partial === null || typeof partial !== "object") throw new Refusal("give an object of settings");
  for (const name of Object.keys(partial))
    if (!NAMES.includes(name))
      throw new Refusal(`there is no setting ${JSON.stringify(name)}; there are ${NAMES.join(", ")}`);
  const next = { ...state, ...copy(partial) }; // what is replaced is copied, nothing is ever changed in place
  for (const name of ["x", "weight", "bias"]) if (name in partial) next[name] = decoded(next[name]);
  if (typeof next.padding === "number") next.padding = [next.padding, next.padding];
  for (const name of ["title", "plan", "about"])
    if (typeof next[name] !== "string") throw new Refusal(`${name} must be text`);
  if (next.lesson !== null && !(Number.isInteger(next.lesson) && next.lesson >= 0 && next.lesson < LESSON.length))
    throw new Refusal(`lesson must be null, or a station from 0 to ${LESSON.length - 1}`);
  if (!TABS.includes(next.tab)) throw new Refusal(`tab must be one of ${TABS.join(", ")}`);
  for (const name of ["channel", "output"])
    if (!Number.isInteger(next[name]) || next[name] < 0) throw new Refusal(`${name} must be a whole number from 0`);
  if (Object.keys(partial).some((name) => NUMBERS.includes(name))) check(next);
  if ("layers" in partial) checkLayers(next.layers);
  return next;
}

const SAID = {
  length: "length",
  groups: "groups",
  kernelSize: "kernel size",
  ins: "input channels",
  outs: "output channels",
};

function checkLayers(layers) {
  if (!Array.isArray(layers) || layers.length === 0 || layers.length > 24)
    throw new Refusal("layers must be 1 to 24 layers");
  for (const layer of layers) {
    for (const name of ["kernel_size", "stride", "dilation"])
      if (!layer || !Number.isInteger(layer[name]) || layer[name] < 1 || layer[name] > 100000)
        throw new Refusal(`${name.replace("_", " ")} of a layer must be a whole number from 1 to 100000`);
    if (layer.name !== undefined && typeof layer.name !== "string")
      throw new Refusal("the name of a layer must be text");
  }
  let reads = 1;
  for (const layer of layers) reads *= layer.kernel_size;
  const span = layers.reduce((sum, layer) => sum + layer.dilation * (layer.kernel_size - 1) * 2, 1);
  if (Math.min(reads, span * layers.reduce((product, layer) => product * layer.stride, 1)) > 4000000)
    throw new Refusal("this stack reads too many samples to be drawn");
  stackGeometries(layers);
}

// The state with other sizes: what was there stays, what is new continues it.
export function resized(state, sizes) {
  const inner = state.weight[0].length;
  const old = {
    length: state.x[0].length,
    groups: state.groups,
    kernelSize: state.weight[0][0].length,
    transposed: state.transposed,
    ins: state.x.length,
    outs: state.transposed ? inner * state.groups : state.weight.length,
  };
  const next = { ...old, ...sizes };
  for (const name of ["length", "groups", "kernelSize", "ins", "outs"])
    if (!Number.isInteger(next[name]) || next[name] < 1)
      throw new Refusal(`${SAID[name]} must be a whole number from 1, got ${next[name]}`);
  if (next.groups > 4096 || next.ins > 4096 || next.outs > 4096 || next.ins * next.outs * next.kernelSize > 4e6)
    throw new Refusal("at most 4096 channels, and 4 million weights");
  if (next.length > 200000 || next.kernelSize > 100000) throw new Refusal("at most 200000 samples and 100000 taps");
  const divided = (channels) => Math.ceil(channels / next.groups) * next.groups;
  if ("groups" in sizes) {
    next.ins = divided(next.ins);
    next.outs = divided(next.outs);
  }
  if (next.ins % next.groups || next.outs % next.groups)
    throw new Refusal(
      `${next.ins} input and ${next.outs} output channels can't be divided into ${next.groups} groups: the next that can are ${divided(next.ins)} and ${divided(next.outs)}`,
    );
  const x = Array.from({ length: next.ins }, (_, c) => {
    const row = state.x[c] || state.x[0].map((value) => value * (c + 1));
    const ramp = row.every((value, n) => n === 0 || value - row[n - 1] === row[1] - row[0]);
    const step = row.length > 1 && ramp ? row[1] - row[0] : 0;
    const beyond = (n) => (step ? row[0] + n * step : 0);
    return Array.from({ length: next.length }, (_, n) => (n < row.length ? row[n] : beyond(n)));
  });
  const oldTaps = (o, r) => {
    const [oldIn, oldOut] = [old.ins / old.groups, old.outs / old.groups];
    const taps =
      o < old.outs && r < oldIn
        ? old.transposed
          ? state.weight[Math.floor(o / oldOut) * oldIn + r][o % oldOut]
          : state.weight[o][r]
        : state.weight[0][0].map((tap) => tap * (o < old.outs ? 1 : o + 1));
    return Array.from({ length: next.kernelSize }, (_, k) => (k < taps.length ? taps[k] : taps[taps.length - 1]));
  };
  const [fanIn, fanOut] = [next.ins / next.groups, next.outs / next.groups];
  const weight = next.transposed
    ? Array.from({ length: next.ins }, (_, c) =>
        Array.from({ length: fanOut }, (_, o) => oldTaps(Math.floor(c / fanIn) * fanOut + o, c % fanIn)),
      )
    : Array.from({ length: next.outs }, (_, o) => Array.from({ length: fanIn }, (_, r) => oldTaps(o, r)));
  const bias =
    state.bias === null
      ? null
      : Array.from({ length: next.outs }, (_, o) => (o < state.bias.length ? state.bias[o] : 0));
  return { x, weight, bias, groups: next.groups, transposed: next.transposed };
}

// A state as the end of an address, and back.
export function toHash(state) {
  const bytes = new TextEncoder().encode(
    JSON.stringify(
      Object.fromEntries(
        Object.entries(state)
          .filter(([name]) => name !== "plan" && name !== "about")
          .map(([name, value]) => [name, encoded(value)]),
      ),
    ),
  );
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return `#s=${btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

export function fromHash(hash) {
  if (!hash.startsWith("#s=")) return null;
  const binary = atob(hash.slice(3).replaceAll("-", "+").replaceAll("_", "/"));
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(binary, (letter) => letter.charCodeAt(0))));
}
