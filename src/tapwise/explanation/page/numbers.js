// Numbers as they are printed: short ones for cells, and sums whose printed digits add up.

export const sumOf = (numbers) => numbers.reduce((a, b) => a + b, 0);

// A number in few characters, for a cell.
export function short(value) {
  if (!Number.isFinite(value)) return String(value).replace("Infinity", "inf");
  if (Number.isInteger(value) && Math.abs(value) < 1e5) return String(value);
  if (Math.abs(value) >= 0.01 && Math.abs(value) < 100) return String(Number(value.toFixed(2)));
  if (Math.abs(value) >= 0.001 && Math.abs(value) < 0.01) return value.toFixed(3);
  return value.toExponential(0).replace("+", "");
}

// The least and the most of a list, however long.
export const leastOf = (list, start = Infinity) => list.reduce((a, b) => (b < a ? b : a), start);
export const mostOf = (list, start = -Infinity) => list.reduce((a, b) => (b > a ? b : a), start);

// How many decimals the addends of a sum are printed with: all that they have, else about four digits of the largest,
// and of many addends more, so that their rounding doesn't add up to a digit that is printed.
// {decimals: null} where they can't be printed so, as beside NaN.
function decimalsOf(values) {
  const most = mostOf(values.map(Math.abs), 0);
  const size = Math.max(most, Math.abs(sumOf(values)));
  if (!(size < 1e9) || values.some(Number.isNaN)) return { decimals: null, exact: false };
  for (let decimals = 0; decimals <= 6; decimals += 1) {
    const scale = 10 ** decimals;
    const ends = (v) => Math.abs(v * scale - Math.round(v * scale)) <= 1e-12 * Math.abs(v * scale);
    if (values.every(ends)) return { decimals, exact: true };
  }
  const exponent = Math.floor(Math.log10(size));
  const extra = Math.ceil(Math.log10(Math.max(1, values.length / 2)));
  const decimals = Math.max(0, (exponent < 0 ? 2 : 3) - exponent + extra);
  return decimals > 12 ? { decimals: null, exact: false } : { decimals, exact: false };
}

// A sum as it is printed: each addend rounded first, so that the printed ones give the printed total.
export class PrintedSum {
  constructor(values) {
    const { decimals, exact } = decimalsOf(values);
    this.decimals = decimals;
    this.exact = exact;
    this.scale = decimals === null ? 1 : 10 ** decimals;
  }

  // The value in units of the last printed decimal.
  units(value) {
    return this.decimals === null ? value : Math.round(value * this.scale);
  }

  total(values) {
    return values.reduce((sum, value) => sum + this.units(value), 0);
  }

  // Units as text.
  text(units) {
    if (this.decimals === null) {
      const text = Number.isFinite(units) ? units.toPrecision(4) : String(units).replace("Infinity", "inf");
      return text.replaceAll("-", "−");
    }
    return ((units || 0) / this.scale).toFixed(this.decimals).replace("-", "−");
  }

  // "3 + 4 − 5", of units; those in the middle left out where they are more than `most`.
  line(units, most = 12) {
    const signed = units.map((n, place) => {
      const text = this.text(n);
      if (!place) return text;
      return text.startsWith("−") ? `− ${text.slice(1)}` : `+ ${text}`;
    });
    if (signed.length <= most) return signed.join(" ");
    return [...signed.slice(0, 2), "+ …", ...signed.slice(-1)].join(" ");
  }
}

// Steps of 1, 2 or 5 times a power of ten, about so many from low to high.
function roundStep(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
}

const multiples = (step, first, last) =>
  Array.from({ length: last - first + 1 }, (_, n) => Number(((first + n) * step).toPrecision(12)));

// Round numbers from low to high.
export function niceTicks(low, high, count = 4) {
  if (!(high > low)) return [low];
  const step = roundStep(low, high, count);
  return multiples(step, Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9));
}

// Round numbers that reach from low or below it to high or above it.
export function ticksAround(low, high, count = 3) {
  if (!(high > low)) return [low, low + 1];
  const step = roundStep(low, high, count);
  return multiples(step, Math.floor(low / step + 1e-9), Math.ceil(high / step - 1e-9));
}
