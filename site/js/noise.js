// Mirrors `normal` of ddpm_course/draws.py, so that a seed gives the package's pictures; test_parts[noise.js] compares them.
// That is numpy's Generator, in two stages: Philox4x64-10 (Salmon et al. 2011) makes random words from seed and counter,
// and a ziggurat of 256 layers (Marsaglia and Tsang 2000) makes normal numbers from words. numpy keeps the first
// for ever, but may change the second (NEP 19): if the test fails after an update of numpy, look at the ziggurat.

export const PURPOSE = { INIT: 0, TIME: 3, NOISE: 4, SAMPLE: 7, LESSON: 9, KNOWN: 11 };                    // of draws.py
const MASK = (1n << 64n) - 1n;
const TIMES = [0xD2E7470EE14C6C93n, 0xCA5A826395121157n], PLUS = [0x9E3779B97F4A7C15n, 0xBB67AE8584CAA73Bn];

/** Four 64-bit words that depend on a counter (4 words) and a key (2 words) only. */
function philox([a, b, c, d], [k, l]) {
  for (let round = 0; round < 10; round++) {
    const p = TIMES[0] * a, q = TIMES[1] * c;
    [a, b, c, d] = [(q >> 64n) ^ b ^ k, q & MASK, (p >> 64n) ^ d ^ l, p & MASK];
    [k, l] = [(k + PLUS[0]) & MASK, (l + PLUS[1]) & MASK];
  }
  return [a, b, c, d];
}

/** The 32-bit words of the stream `generator(seed, purpose, step, i)`. */
function* words(seed, purpose, step, i) {
  for (let n = 1n; ; n++)                                       // numpy counts up before it draws
    for (const word of philox([n, 0n, BigInt(i), BigInt(step)], [BigInt(seed), BigInt(purpose)]))
      yield* [Number(word & 0xFFFFFFFFn), Number(word >> 32n)];
}

/** n numbers in [0, 1): those of `generator(seed, purpose, step, i).random(n)`. */
export function uniform(n, seed, purpose, step, i) {
  const stream = words(seed, purpose, step, i), word = () => stream.next().value;
  return Float64Array.from({ length: n }, () => ((word() >>> 11) + word() * 2 ** 21) / 2 ** 53);
}

// The layers of the ziggurat, from the tail (0) to the top: all have the same area, and end on the curve.
const END = 3.6541528853610088, AREA = 0.00492867323399, UNIT = 2 ** 23, float = Math.fround;
const bell = x => Math.exp(-x * x / 2);
const inside = new Uint32Array(256), width = new Float32Array(256), height = new Float32Array(256);
{
  let x = END;
  inside[0] = Math.round(END * bell(END) / AREA * UNIT);        // rounded, as numpy's tables are
  [width[0], height[0]] = [AREA / bell(END) / UNIT, 1];
  [width[255], height[255]] = [END / UNIT, bell(END)];
  for (let i = 254; i > 0; i--) {
    const next = Math.sqrt(-2 * Math.log(AREA / x + bell(x)));
    inside[i + 1] = Math.round(next / x * UNIT);
    [width[i], height[i]] = [next / UNIT, bell(next)];
    x = next;
  }
}

/** n standard normal numbers: those of `normal((n,), seed, purpose, step, [i])`. */
export function normal(n, seed, purpose, step, i) {
  const stream = words(seed, purpose, step, i), out = new Float32Array(n);
  const word = () => stream.next().value, uniform = () => (word() >>> 8) / 2 ** 24;
  for (let k = 0; k < n;) {
    const bits = word(), layer = bits & 255, size = bits >>> 9, sign = bits & 256 ? -1 : 1;
    const x = float(size * width[layer]);
    if (size < inside[layer]) out[k++] = sign * x;              // 99 times of 100
    else if (layer) {
      const y = float(float(height[layer - 1] - height[layer]) * uniform());
      if (float(y + height[layer]) < bell(x)) out[k++] = sign * x;
    } else out[k++] = (size & 256 ? -1 : 1) * tail(uniform);
  }
  return out;
}

/** A number beyond the last layer. */
function tail(uniform) {
  for (;;) {
    const x = float(float(-1 / END) * float(Math.log1p(-uniform()))), y = float(-Math.log1p(-uniform()));
    if (y + y > x * x) return float(END + x);
  }
}
