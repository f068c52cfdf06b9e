// The derivative of one output, or of the sum of all outputs, by each input, each weight and each bias: the windows of
// the convolution once more, in reverse. Tests hold it equal to autograd's.
import { feeds, source, windowTaps } from "./convolution.js";

export class Gradients {
  // `chosen` is {channel, output}; null for the sum of all outputs.
  constructor(c, chosen = null) {
    this.c = c;
    this.chosen = chosen;
    this.kept = new Map();
  }

  // The same of what was asked before.
  once(name, make) {
    if (!this.kept.has(name)) this.kept.set(name, make());
    return this.kept.get(name);
  }

  // grad_output: by which factor an output counts.
  output(channel, i) {
    const { chosen } = this;
    return chosen === null || (chosen.channel === channel && chosen.output === i) ? 1 : 0;
  }

  // The output channels that read an input channel.
  readers(input) {
    const { c } = this;
    const first = Math.floor(input / c.inGroup) * c.outGroup;
    return Array.from({ length: c.outGroup }, (_, n) => first + n);
  }

  // The outputs that count.
  counted() {
    const { c, chosen } = this;
    return chosen === null ? Array.from({ length: c.outputs }, (_, i) => i) : [chosen.output];
  }

  // How input p came into output channel `channel`: [{output, tap, factor}], the factor is the tap's weight.
  partsOfInput(input, p, channel) {
    const { c } = this;
    const g = c.geometry;
    const taps = c.taps(channel, input % c.inGroup);
    const parts = [];
    for (const i of feeds(g, p, c.length)) {
      if (!this.output(channel, i)) continue;
      for (const [position, k] of windowTaps(g, i)) {
        if (g.transposed ? position !== p : source(g, position, c.length) !== p) continue;
        parts.push({ output: i, tap: k, factor: taps[k] });
      }
    }
    return parts;
  }

  // The input that tap k of an output's window reads, null for a zero; undefined where the window has no such tap.
  source(i, k) {
    const { geometry: g, length } = this.c;
    if (!g.transposed) return source(g, i * g.stride - g.left + k * g.dilation, length);
    const shift = i + g.left - k * g.dilation;
    if (shift % g.stride !== 0) return undefined;
    const position = shift / g.stride;
    return position >= 0 && position < length ? position : undefined;
  }

  // What a tap was multiplied by: [{output, input, factor}], the factor is the input's value.
  partsOfTap(channel, row, k) {
    const x = this.c.state.x[this.c.inputs(channel)[row]];
    const parts = [];
    for (const i of this.counted()) {
      if (!this.output(channel, i)) continue;
      const from = this.source(i, k);
      if (from !== undefined) parts.push({ output: i, input: from, factor: from === null ? 0 : x[from] });
    }
    return parts;
  }

  // grad_input of one input channel; null where it would take too long.
  input(input, most = 6e7) {
    const { c } = this;
    const { kernelSize } = c.geometry;
    const outputs = this.counted();
    const readers = this.readers(input).filter((o) => this.chosen === null || o === this.chosen.channel);
    if (readers.length * outputs.length * kernelSize > most) return null;
    const sums = new Float64Array(c.length);
    for (const channel of readers) {
      const taps = c.taps(channel, input % c.inGroup);
      for (const i of outputs)
        for (let k = 0; k < kernelSize; k += 1) {
          const from = this.source(i, k);
          if (from !== null && from !== undefined) sums[from] += taps[k];
        }
    }
    return sums;
  }

  // grad_weight of one tap.
  tap(channel, row, k) {
    const x = this.c.state.x[this.c.inputs(channel)[row]];
    let sum = 0;
    for (const i of this.counted()) {
      const from = this.output(channel, i) ? this.source(i, k) : null;
      if (from !== null && from !== undefined) sum += x[from];
    }
    return sum;
  }

  bias(channel) {
    return this.counted().filter((i) => this.output(channel, i)).length;
  }

  // All of it, in the shapes of x, weight and bias.
  all() {
    const { c } = this;
    const { x, weight, bias } = c.state;
    const grad = weight.map((list) => list.map((taps) => taps.map(() => 0)));
    for (let channel = 0; channel < c.channels; channel += 1)
      for (let row = 0; row < c.inGroup; row += 1) {
        const [outer, inner] = c.place(channel, row);
        grad[outer][inner] = grad[outer][inner].map((_, k) => this.tap(channel, row, k));
      }
    return {
      input: x.map((_, input) => Array.from(this.input(input, Infinity))),
      weight: grad,
      bias: bias === null ? null : bias.map((_, channel) => this.bias(channel)),
    };
  }
}
