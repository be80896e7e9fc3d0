// A small network for the plane, and Algorithm 1: sines of place and time -> 64 -> 64 -> v, SiLU, Adam, averaged weights.
// Its draws are the package's for a seed; test_plane trains the same network in PyTorch.
import { normal, uniform } from './noise.js';

const INIT = 0, TIME = 3, NOISE = 4;                                             // of ddpm_course.draws.Purpose
const PLACES = [1, 2, 4], TIMES = [1.5, 3, 6, 12], INPUTS = 2 + 4 * PLACES.length + 2 * TIMES.length, SIZES = [INPUTS, 64, 64, 2];
const silu = z => z / (1 + Math.exp(-z));
const slope = z => { const s = 1 / (1 + Math.exp(-z)); return s * (1 + z * (1 - s)); };

/** What the network is told of place k at time u in 0..1. */
function tell(inputs, at, x, y, u) {
  inputs[at++] = x;
  inputs[at++] = y;
  for (const f of PLACES) for (const v of [x, y]) { inputs[at++] = Math.sin(f * v); inputs[at++] = Math.cos(f * v); }
  for (const f of TIMES) { inputs[at++] = Math.sin(f * u); inputs[at++] = Math.cos(f * u); }
}

/** Fresh layers: weights (out, in), row by row, and then the biases. */
const newLayers = seed => SIZES.slice(1).map((outs, l) => {
  const ins = SIZES[l], scale = l === 2 ? 0 : 1 / Math.sqrt(ins);               // the last layer begins at zero
  return Float32Array.from(normal((ins + 1) * outs, seed, INIT, 0, l), (z, i) => i < ins * outs ? scale * z : 0);
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
  for (let b = 0; b < B; b++) tell(inputs, b * INPUTS, places[2 * b], places[2 * b + 1], t / abars.length);
  const { answer } = forward(layers, inputs, B);
  return places.map((x, i) => signal * x - sigma * answer[i]);
}

/** Training on points, one step a call of `step()`, which gives the loss; `mean` are the averaged weights. */
export function trainer(points, abars, seed, B = 64, rate = 4e-3) {
  const layers = newLayers(seed), [m, v] = [0, 0].map(() => layers.map(w => new Float32Array(w.length))), T = abars.length;
  const mean = layers.map(w => w.slice());
  let n = 0;
  function step() {
    const inputs = new Float32Array(B * INPUTS), target = new Float32Array(2 * B);
    const eps = normal(2 * B, seed, NOISE, n, 0), u = uniform(2 * B, seed, TIME, n, 0);
    for (let b = 0; b < B; b++) {
      const i = 2 * Math.floor(u[b] * points.length / 2), t = Math.floor((b + u[B + b]) / B * T);
      const signal = Math.sqrt(abars[t]), sigma = Math.sqrt(1 - abars[t]);
      const [x, y] = [0, 1].map(d => {
        target[2 * b + d] = signal * eps[2 * b + d] - sigma * points[i + d];
        return signal * points[i + d] + sigma * eps[2 * b + d];
      });
      tell(inputs, b * INPUTS, x, y, t / T);
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
