// The twin of geometry.py and of torch's convolution, in plain numbers: what the page computes as its
// reader edits. Tests hold it equal to torch. Nothing here knows of pictures.

export const PADDING_WORDS = ["valid", "same", "causal", "semicausal", "full"];
export const PADDING_MODES = ["zeros", "reflect", "replicate", "circular"];
export const MOST = { length: 200000, channels: 4096, kernelSize: 100000, number: 1000000 };

export class Refusal extends Error {}

function integer(name, value, least, most = MOST.number) {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new Refusal(`${name} must be a whole number from ${least} to ${most}, got ${JSON.stringify(value)}`);
  }
  return value;
}

// (left, right) that a padding means for a filter that reaches over so many samples.
export function padsOf(padding, effective, stride, transposed) {
  const all = effective - 1;
  if (transposed) {
    if (padding === "causal") return [0, Math.max(effective - stride, 0)];
    if (typeof padding === "string")
      throw new Refusal(`a transposed convolution takes numbers or "causal" as padding, got "${padding}"`);
  } else if (padding === "valid") return [0, 0];
  else if (padding === "same") return [Math.floor(all / 2), all - Math.floor(all / 2)];
  else if (padding === "causal") return [all, 0];
  else if (padding === "semicausal") return [Math.max(effective - stride, 0), Math.min(effective, stride) - 1];
  else if (padding === "full") return [all, all];
  const pair = Array.isArray(padding) && padding.length === 2 ? padding : [padding, padding];
  return [integer("padding", pair[0], 0), integer("padding", pair[1], 0)];
}

// The geometry of a state, checked: {kernelSize, effective, stride, dilation, left, right, ...}.
export function geometryOf(state) {
  const kernelSize = integer("kernel size", state.weight[0][0].length, 1, MOST.kernelSize);
  const stride = integer("stride", state.stride, 1);
  const dilation = integer("dilation", state.dilation, 1);
  const groups = integer("groups", state.groups, 1, MOST.channels);
  const transposed = Boolean(state.transposed);
  if (!PADDING_MODES.includes(state.padding_mode))
    throw new Refusal(`padding mode must be one of ${PADDING_MODES.join(", ")}`);
  if (transposed && state.padding_mode !== "zeros") throw new Refusal("a transposed convolution pads with zeros only");
  const effective = dilation * (kernelSize - 1) + 1;
  const [left, right] = padsOf(state.padding, effective, stride, transposed);
  let outputPadding = transposed ? integer("output padding", state.output_padding || 0, 0) : 0;
  if (transposed && state.padding === "causal") outputPadding += Math.max(stride - effective, 0);
  return {
    kernelSize,
    effective,
    stride,
    dilation,
    left,
    right,
    groups,
    mode: state.padding_mode,
    transposed,
    outputPadding,
  };
}

export function outputLength(g, length) {
  if (g.transposed) {
    return length === 0 ? 0 : Math.max(0, (length - 1) * g.stride + g.effective + g.outputPadding - g.left - g.right);
  }
  return Math.max(0, Math.floor((length + g.left + g.right - g.effective) / g.stride) + 1);
}

const modulo = (a, n) => ((a % n) + n) % n;

// The input whose value stands at a position; null where a zero does.
export function source(g, position, length) {
  if (position >= 0 && position < length) return position;
  if (g.mode === "zeros") return null;
  if (g.mode === "circular") return modulo(position, length);
  if (g.mode === "replicate") return position < 0 ? 0 : length - 1;
  const last = length - 1;
  return last - Math.abs(modulo(position, 2 * last) - last);
}

// The pairs [position, tap] of an output's window, in the order of the taps.
export function windowTaps(g, output) {
  const pairs = [];
  if (!g.transposed) {
    for (let k = 0; k < g.kernelSize; k += 1) pairs.push([output * g.stride - g.left + k * g.dilation, k]);
    return pairs;
  }
  for (let k = 0; k < g.kernelSize; k += 1) {
    const shift = output + g.left - k * g.dilation;
    if (modulo(shift, g.stride) === 0) pairs.push([shift / g.stride, k]);
  }
  return pairs;
}

// The outputs that an input feeds, through every copy that padding makes of it.
export function feeds(g, position, length) {
  const outputs = outputLength(g, length);
  const fed = new Set();
  const add = (i) => {
    if (i >= 0 && i < outputs) fed.add(i);
  };
  if (g.transposed) {
    for (let k = 0; k < g.kernelSize; k += 1) add(position * g.stride - g.left + k * g.dilation);
  } else {
    const copies = [position];
    if (g.mode !== "zeros") {
      for (let p = -g.left; p < 0; p += 1) if (source(g, p, length) === position) copies.push(p);
      for (let p = length; p < length + g.right; p += 1) if (source(g, p, length) === position) copies.push(p);
    }
    for (const copy of copies) {
      for (let k = 0; k < g.kernelSize; k += 1) {
        const shift = copy + g.left - k * g.dilation;
        if (modulo(shift, g.stride) === 0) add(shift / g.stride);
      }
    }
  }
  return [...fed].sort((a, b) => a - b);
}

// How many input samples at the end no window reaches.
export function unread(g, length) {
  const outputs = outputLength(g, length);
  if (g.transposed || outputs === 0) return 0;
  const end = (outputs - 1) * g.stride - g.left + g.effective;
  return Math.max(0, Math.min(length, length - end));
}

// How far an output may read beyond input i*stride, copies that padding makes counted; 0 where it is causal.
export function ahead(g, length, outputs) {
  let most = g.effective - 1 - g.left;
  if ((g.mode === "reflect" || g.mode === "circular") && g.left > 0) {
    for (let i = 0; i < Math.min(outputs, Math.ceil(g.left / g.stride), 2000); i += 1) {
      for (const [p] of windowTaps(g, i)) if (p < 0) most = Math.max(most, source(g, p, length) - i * g.stride);
    }
  }
  return most;
}

// A state checked as a whole; throws a Refusal that says what was got and what is expected.
export function check(state) {
  const rows = (name, list, sizes) => {
    if (!Array.isArray(list) || list.length === 0) throw new Refusal(`${name} must be ${sizes}`);
    return list;
  };
  const x = rows("x", state.x, "a list of channels, each a list of numbers");
  const length = x[0].length;
  const numbers = (name, list) => {
    if (!Array.isArray(list)) throw new Refusal(`${name} must be a list of numbers`);
    for (const value of list)
      if (typeof value !== "number") throw new Refusal(`${name} must hold numbers, got ${JSON.stringify(value)}`);
    return list;
  };
  for (const row of x) if (numbers("x", row).length !== length) throw new Refusal("the channels of x differ in length");
  integer("length", length, 1, MOST.length);
  integer("channels of x", x.length, 1, MOST.channels);
  for (const list of rows("weight", state.weight, "(out_channels, in_channels/groups, kernel_size)")) {
    for (const taps of rows("weight", list, "(out_channels, in_channels/groups, kernel_size)")) {
      if (list.length !== state.weight[0].length || numbers("weight", taps).length !== state.weight[0][0].length)
        throw new Refusal("the filters of weight differ in size");
    }
  }
  const g = geometryOf(state);
  const [outer, inner] = [state.weight.length, state.weight[0].length];
  const [fanIn, out] = g.transposed ? [outer, inner * g.groups] : [inner * g.groups, outer];
  if (outer % g.groups) throw new Refusal(`${outer} channels of weight can't be divided into ${g.groups} groups`);
  integer("output channels", out, 1, MOST.channels);
  if (fanIn !== x.length) throw new Refusal(`weight and groups are for ${fanIn} input channels, x has ${x.length}`);
  if (state.bias !== null && numbers("bias", state.bias).length !== out)
    throw new Refusal(`bias must hold ${out} numbers, one for each output channel`);
  if (g.mode !== "zeros" && (g.left || g.right) && length < (g.mode === "reflect" ? 2 : 1))
    throw new Refusal(`padding mode ${g.mode} can't fill padding from ${length} sample`);
  if (g.transposed && g.outputPadding >= Math.max(g.stride, g.dilation) && state.padding !== "causal")
    throw new Refusal("output padding must be smaller than either stride or dilation");
  if (outputLength(g, length) === 0) {
    throw new Refusal(
      g.transposed
        ? "the padding cuts every output off"
        : `the filter reaches over ${g.effective} samples, but with padding there are ${length + g.left + g.right}: a longer input, fewer taps, less dilation, or padding "same" or "causal"`,
    );
  }
  return g;
}

// A convolution that is computed where it is asked for: one step, one channel, or all.
export class Convolution {
  constructor(state) {
    this.geometry = check(state);
    this.state = state;
    this.length = state.x[0].length;
    this.outputs = outputLength(this.geometry, this.length);
    const { groups, transposed } = this.geometry;
    this.channels = transposed ? state.weight[0].length * groups : state.weight.length;
    this.inGroup = state.x.length / groups;
    this.outGroup = this.channels / groups;
  }

  // The taps from an input channel of the group to an output channel.
  taps(channel, row) {
    const { weight } = this.state;
    if (!this.geometry.transposed) return weight[channel][row];
    const group = Math.floor(channel / this.outGroup);
    return weight[group * this.inGroup + row][channel % this.outGroup];
  }

  // Where those taps lie in weight: [outer, inner].
  place(channel, row) {
    if (!this.geometry.transposed) return [channel, row];
    return [Math.floor(channel / this.outGroup) * this.inGroup + row, channel % this.outGroup];
  }

  // The input channels that an output channel sums.
  inputs(channel) {
    const first = Math.floor(channel / this.outGroup) * this.inGroup;
    return Array.from({ length: this.inGroup }, (_, row) => first + row);
  }

  // How one number came about: {positions, taps, padded, rows: [{input, values, taps, products}], bias, sum}.
  step(channel, output) {
    const g = this.geometry;
    let pairs = windowTaps(g, output);
    if (g.transposed) pairs = pairs.filter(([p]) => p >= 0 && p < this.length);
    const sources = pairs.map(([p]) => source(g, p, this.length));
    let sum = 0;
    const rows = this.inputs(channel).map((input, row) => {
      const mine = this.taps(channel, row);
      const values = sources.map((s) => (s === null ? 0 : this.state.x[input][s]));
      const taps = pairs.map(([, k]) => mine[k]);
      const products = values.map((value, n) => value * taps[n]);
      for (const product of products) sum += product;
      return { input, values, taps, products };
    });
    const bias = this.state.bias === null ? null : this.state.bias[channel];
    return {
      channel,
      output,
      bias,
      rows,
      sources,
      positions: pairs.map(([p]) => p),
      taps: pairs.map(([, k]) => k),
      padded: pairs.map(([p]) => p < 0 || p >= this.length),
      sum: sum + (bias === null ? 0 : bias),
    };
  }

  value(channel, output) {
    const g = this.geometry;
    const { x } = this.state;
    const first = Math.floor(channel / this.outGroup) * this.inGroup;
    const pairs = windowTaps(g, output);
    let sum = 0;
    for (let row = 0; row < this.inGroup; row += 1) {
      const taps = this.taps(channel, row);
      for (const [p, k] of pairs) {
        if (g.transposed && (p < 0 || p >= this.length)) continue;
        const s = source(g, p, this.length);
        sum += (s === null ? 0 : x[first + row][s]) * taps[k];
      }
    }
    return sum + (this.state.bias === null ? 0 : this.state.bias[channel]);
  }

  // One channel of the output, without a list for each window; null where it would take too long.
  channel(channel, most = 6e7) {
    const g = this.geometry;
    if (this.outputs * this.inGroup * g.kernelSize > most) return null;
    const first = Math.floor(channel / this.outGroup) * this.inGroup;
    const y = new Float64Array(this.outputs).fill(this.state.bias === null ? 0 : this.state.bias[channel]);
    for (let row = 0; row < this.inGroup; row += 1) {
      const [x, taps] = [this.state.x[first + row], this.taps(channel, row)];
      for (let k = 0; k < g.kernelSize; k += 1) {
        if (g.transposed) {
          for (let p = 0; p < this.length; p += 1) {
            const i = p * g.stride + k * g.dilation - g.left;
            if (i >= 0 && i < this.outputs) y[i] += x[p] * taps[k];
          }
          continue;
        }
        for (let i = 0; i < this.outputs; i += 1) {
          const p = i * g.stride + k * g.dilation - g.left;
          const from = p >= 0 && p < this.length ? p : source(g, p, this.length);
          y[i] += (from === null ? 0 : x[from]) * taps[k];
        }
      }
    }
    return y;
  }

  // All of it: (out_channels, output length) as nested arrays.
  output() {
    return Array.from({ length: this.channels }, (_, channel) => Array.from(this.channel(channel, Infinity)));
  }
}

// --- Stacks of layers: which inputs one output of the last reads.

// Each layer is {kernel_size, stride, dilation, padding}; not transposed.
export function stackGeometries(layers) {
  return layers.map((layer) =>
    geometryOf({
      weight: [[new Array(layer.kernel_size).fill(0)]],
      stride: layer.stride,
      dilation: layer.dilation,
      padding: layer.padding,
      padding_mode: "zeros",
      groups: 1,
      transposed: false,
    }),
  );
}

// For each layer from the last to the input, the sorted positions that output i of the stack reads.
export function cone(geometries, i) {
  const levels = [[i]];
  for (const g of [...geometries].reverse()) {
    const read = new Set();
    for (const output of levels[levels.length - 1]) for (const [p] of windowTaps(g, output)) read.add(p);
    levels.push([...read].sort((a, b) => a - b));
  }
  return levels;
}

// {first, last, count, holes, stride, future}: relative to input i*stride, for one output of the stack.
export function receptiveField(geometries) {
  const levels = cone(geometries, 0);
  const read = levels[levels.length - 1];
  const [first, last] = [read[0], read[read.length - 1]];
  const stride = geometries.reduce((product, g) => product * g.stride, 1);
  return { first, last, count: read.length, holes: last - first + 1 - read.length, stride, future: Math.max(last, 0) };
}

// --- What taps do to frequencies.

// Magnitude and group delay of taps as a layer applies them, at `points` frequencies from 0 to a half.
export function response(taps, dilation, left, points = 129) {
  const rows = [];
  for (let n = 0; n < points; n += 1) {
    const frequency = n / (2 * (points - 1));
    let [re, im, dre, dim] = [0, 0, 0, 0];
    taps.forEach((tap, k) => {
      const time = left - k * dilation; // how long ago the sample came that this tap reads
      const angle = -2 * Math.PI * frequency * time;
      const [c, s] = [tap * Math.cos(angle), tap * Math.sin(angle)];
      re += c;
      im += s;
      dre += time * c;
      dim += time * s;
    });
    const power = re * re + im * im;
    // Rounded, since the noise of the sums is no delay.
    const delay = power > 1e-18 ? Math.round(((dre * re + dim * im) / power) * 1e9) / 1e9 + 0 : NaN;
    rows.push({ frequency, magnitude: Math.sqrt(power), delay });
  }
  return rows;
}
