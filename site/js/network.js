// Mirrors Model of ddpm_course/model.py, OBJECTIVES of losses.py, and `guided` and `sample` of sampling.py, for a run's
// config.json and weights. test_parts[network.js] compares what it predicts.
import { PURPOSE, normal } from './noise.js';
import { readSafetensors } from './safetensors.js';
import { SCHEDULES, noised, trailing, walk } from './sampler.js';
import { buildUNet } from './unet.js';

const OBJECTIVES = {                                                    // x_0 from x_t and the answer
  eps: (x, e, signal, sigma) => (x - sigma * e) / signal,
  x0: (x, x0) => x0,
  v: (x, v, signal, sigma) => signal * x - sigma * v,
};

/** What a run's config.json says that a page needs. Throws an Error with a sentence where it cannot be used. */
export function readConfig(config) {
  const { data, diffusion, network, training } = config;
  if (!network || network.network !== 'unet') throw new Error('The page knows the U-Net only: expected config.json of a run with --network unet.');
  if (!(diffusion.schedule in SCHEDULES)) throw new Error(`The page does not know the schedule ${diffusion.schedule}.`);
  if (!(diffusion.objective in OBJECTIVES)) throw new Error(`The page does not know the objective ${diffusion.objective}.`);
  const conditional = network.conditional && data.classes.length > 0;
  return {
    size: data.size, channels: data.image_channels || 1, classes: conditional ? data.classes : [], T: diffusion.T,
    canGuide: conditional && training.label_drop > 0, objective: diffusion.objective, schedule: diffusion.schedule,
    groups: network.groups || Math.min(32, Math.max(1, Math.floor(network.channels / 4))),
  };
}

/** The noise of samples with these keys, one after the other. */
export function noiseOf({ columns, rows, seed }, length, purpose = PURPOSE.SAMPLE, step = 0) {
  const out = new Float32Array(columns.length * length);
  columns.forEach((c, k) => out.set(normal(length, seed, purpose, step, BigInt(c) * 2n ** 32n + BigInt(rows[k])), k * length));
  return out;
}

export async function loadModel(config, weights, wasm) {
  const facts = readConfig(config), { instance } = await WebAssembly.instantiate(wasm);
  const network = buildUNet(readSafetensors(weights), instance.exports, facts);
  const abars = SCHEDULES[facts.schedule](facts.T), length = facts.channels * facts.size ** 2;

  /** The x_0 predicted from B images x at index t and classes ys, clipped; guidance w makes u + w (c - u) of two answers, and
   *  with a class `also` for all u + w (c - u) + w (d - u), as `compose` of ddpm_course/compose.py, where u may be that of a
   *  class `base`. */
  function predict(x, t, ys, w, also, base = facts.classes.length) {
    const all = k => ys.map(() => k), c = network(x, t, ys), d = also === undefined ? null : network(x, t, all(also));
    const u = (w === 1 && !d) || !facts.canGuide ? c : network(x, t, all(d ? base : facts.classes.length));
    const signal = Math.sqrt(abars[t]), sigma = Math.sqrt(1 - abars[t]), x0 = OBJECTIVES[facts.objective];
    return x.map((v, i) => Math.max(-1, Math.min(1, x0(v, u[i] + w * (c[i] - u[i]) + (d ? w * (d[i] - u[i]) : 0), signal, sigma))));
  }

  /** The chain of samples with these keys (column * 2^32 + row): those of `ddpm sample --seed`; with a picture, and perhaps
   *  a mask of what is to be drawn anew, those of --from, --strength and --mask (page 19). */
  function* samples({ columns, rows, classes, also, base, seed, sampler, steps, guidance, picture, strength = 1, mask }) {
    const draw = (t, purpose = PURPOSE.SAMPLE) => noiseOf({ columns, rows, seed }, length, purpose, t + 1);
    const every = trailing(facts.T, steps), indices = every.slice(-Math.max(1, Math.round(strength * steps)));
    const start = indices.length < steps ? noised(picture, abars[indices[0]], draw(-1)) : draw(-1);
    const keep = mask ? (x, t, next) => {
      const known = noised(picture, next, draw(t, PURPOSE.KNOWN));
      return x.map((v, i) => mask[i % mask.length] ? v : known[i]);
    } : undefined;
    yield* walk((x, t) => predict(x, t, classes, guidance, also, base), start, { sampler, abars, indices, noise: draw, keep });
  }
  return { ...facts, abars, length, predict, samples };
}
