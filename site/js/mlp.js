// A small network for the plane, and Algorithm 1: sines of place and time -> 64 -> 64 -> v, SiLU, Adam, averaged weights.
// Its draws are the package's for a seed; test_plane trains the same network in PyTorch.
import { PURPOSE, normal, uniform } from './noise.js';
import { mix } from './sampler.js';

const PLACES = [1, 2, 4], TIMES = [1.5, 3, 6, 12], INPUTS = 2 + 4 * PLACES.length + 2 * TIMES.length, SIZES = [INPUTS, 64, 64, 2];
const silu = z => z / (1 + Math.exp(-z));
const slope = z => { const s = 1 / (1 + Math.exp(-z)); return s * (1 + z * (1 - s)); };

/** What the network is told of a place at time u in 0..1. */
function told([x, y], u) {
  const angles = [...PLACES.flatMap(f => [f * x, f * y]), ...TIMES.map(f => f * u)];
  return [x, y, ...angles.flatMap(a => [Math.sin(a), Math.cos(a)])];
}

/** Fresh layers: weights (out, in), row by row, and then the biases. */
const newLayers = seed => SIZES.slice(1).map((outs, l) => {
  const ins = SIZES[l], scale = l === 2 ? 0 : 1 / Math.sqrt(ins);               // the last layer begins at zero
  return Float32Array.from(normal((ins + 1) * outs, seed, PURPOSE.INIT, 0, l), (z, i) => i < ins * outs ? scale * z : 0);
});

/** All values before and after each SiLU, for B inputs. */
function forward(layers, inputs, B) {
  const before = [], after = [inputs];
  layers.forEach((w, l) => {
    const ins = SIZES[l], outs = SIZES[l + 1], x = after[l], z = new Float32Array(B * outs);
    for (let b = 0; b < B; b++) for (let o = 0; o < outs; o++) {
      let sum = w[ins * outs + o];
      for (let i = 0; i < ins; i++) sum += w[o * ins + i] * x[b * ins + i];
      z[b * outs + o] = sum;
    }
    before.push(z);
    after.push(l < 2 ? z.map(silu) : z);
  });
  return { before, after, answer: after[3] };
}

/** The x_0 that the network sees in each place, at index t of T. */
export function predict(layers, places, t, abars) {
  const B = places.length / 2, inputs = new Float32Array(B * INPUTS), signal = Math.sqrt(abars[t]), sigma = Math.sqrt(1 - abars[t]);
  for (let b = 0; b < B; b++) inputs.set(told(places.slice(2 * b, 2 * b + 2), t / abars.length), b * INPUTS);
  const { answer } = forward(layers, inputs, B);
  return mix(signal, places, -sigma, answer);
}

/** Training on points, one step a call of `step()`, which gives the loss; `mean` are the averaged weights. */
export function trainer(points, abars, seed, B = 64, rate = 4e-3) {
  const layers = newLayers(seed), [m, v] = [0, 0].map(() => layers.map(w => new Float32Array(w.length))), T = abars.length;
  const mean = layers.map(w => w.slice());
  let n = 0;
  function step() {
    const inputs = new Float32Array(B * INPUTS), target = new Float32Array(2 * B);
    const eps = normal(2 * B, seed, PURPOSE.NOISE, n, 0), u = uniform(2 * B, seed, PURPOSE.TIME, n, 0);
    for (let b = 0; b < B; b++) {
      const i = 2 * Math.floor(u[b] * points.length / 2), t = Math.floor((b + u[B + b]) / B * T);
      const x0 = points.slice(i, i + 2), e = eps.slice(2 * b, 2 * b + 2), signal = Math.sqrt(abars[t]), sigma = Math.sqrt(1 - abars[t]);
      target.set(mix(signal, e, -sigma, x0), 2 * b);
      inputs.set(told(mix(signal, x0, sigma, e), t / T), b * INPUTS);
    }
    const { before, after, answer } = forward(layers, inputs, B);
    let back = answer.map((a, i) => (a - target[i]) / B), loss = 0;
    answer.forEach((a, i) => { loss += (a - target[i]) ** 2 / (2 * B); });
    n++;
    for (let l = 2; l >= 0; l--) {
      const ins = SIZES[l], outs = SIZES[l + 1], w = layers[l], g = new Float32Array(w.length), x = after[l], below = new Float32Array(B * ins);
      for (let b = 0; b < B; b++) for (let o = 0; o < outs; o++) {
        const d = back[b * outs + o];
        g[ins * outs + o] += d;
        for (let i = 0; i < ins; i++) { g[o * ins + i] += d * x[b * ins + i]; below[b * ins + i] += d * w[o * ins + i]; }
      }
      if (l) back = below.map((d, i) => d * slope(before[l - 1][i]));
      for (let i = 0; i < w.length; i++) {                                      // Adam, with a warm-up of 50 steps
        m[l][i] += 0.1 * (g[i] - m[l][i]);
        v[l][i] += 0.01 * (g[i] ** 2 - v[l][i]);
        const up = m[l][i] / (1 - 0.9 ** n), root = Math.sqrt(v[l][i] / (1 - 0.99 ** n));
        w[i] -= rate * Math.min(1, n / 50) / Math.sqrt(1 + n / 1000) * up / (root + 1e-8);
        mean[l][i] += (1 - Math.min(0.995, n / (n + 9))) * (w[i] - mean[l][i]);
      }
    }
    return loss;
  }
  return { step, mean };
}
