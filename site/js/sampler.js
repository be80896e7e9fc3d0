// Mirrors ddpm_course: SCHEDULES is betas.py, `trailing` and SAMPLERS are steps.py, `walk` is sampling.py, under the same
// names (Algorithm 2 of Ho et al. 2020, DDIM, DPM-Solver++). test_parts[sampler.js] compares whole chains.

/** alpha-bar by index t, which is the paper's t + 1. */
export const SCHEDULES = {
  cosine: T => running(T, t => Math.min(0.999, 1 - hill((t + 1) / T) / hill(t / T))),
  linear: T => running(T, t => (0.1 + 19.9 * t / (T - 1)) / T),
};
const hill = u => Math.cos((u + 0.008) / 1.008 * Math.PI / 2) ** 2;
export const running = (T, beta) => {
  let product = 1;
  return Array.from({ length: T }, (_, t) => product *= 1 - beta(t));
};

/** The timestep indices of a chain of so many steps, from T - 1 down. */
export const trailing = (T, steps) => Array.from({ length: steps }, (_, k) => halfToEven(T - k * T / steps) - 1);
const halfToEven = v => Math.abs(v % 1) === 0.5 ? 2 * Math.round(v / 2) : Math.round(v);      // as Python rounds

/** a x + b y */
export const mix = (a, x, b, y) => x.map((v, i) => a * v + b * y[i % y.length]);
/** x_t in one jump, for each picture of noise. */
export const noised = (x0, abar, eps) => mix(Math.sqrt(1 - abar), eps, Math.sqrt(abar), x0);
const clock = abar => Math.log(abar / (1 - abar)) / 2;

/** One step, from alpha-bar `here` to `next`: from x_t and the predicted x_0 to the next x. */
export const SAMPLERS = {
  ddpm({ x, x0, here, next, noise }) {                          // ancestral, with the small variance
    const beta = 1 - here / next, left = (1 - next) / (1 - here);
    const mean = mix(Math.sqrt(next) * beta / (1 - here), x0, Math.sqrt(1 - beta) * left, x);
    return next === 1 ? mean : mix(1, mean, Math.sqrt(left * beta), noise());
  },
  ddim({ x, x0, here, next }) {                                 // the predicted noise is kept
    const keep = Math.sqrt((1 - next) / (1 - here));
    return mix(Math.sqrt(next) - keep * Math.sqrt(here), x0, keep, x);
  },
  dpm({ x, x0, here, next, before }) {                          // DPM-Solver++(2M): with a memory of x0
    if (next === 1) return x0;
    const h = clock(next) - clock(here), keep = Math.sqrt((1 - next) / (1 - here));
    const r = before ? h / (2 * (clock(here) - clock(before.here))) : 0;
    const aim = before ? mix(1 + r, x0, -r, before.x0) : x0;
    return mix(keep, x, -Math.sqrt(next) * Math.expm1(-h), aim);
  },
};

/** Gives { t, x, x0 } from noise to image: the paper's t, x_t, and the x_0 that `predict(x, t)` sees in it. `keep` may
 *  change the next x: it puts back what is known of a picture (page 19). */
export function* walk(predict, x, { sampler, abars, indices, noise, keep = x => x }) {
  let before = null;
  for (const [k, t] of indices.entries()) {
    const here = abars[t], next = k + 1 < indices.length ? abars[indices[k + 1]] : 1;
    const x0 = predict(x, t);
    yield { t: t + 1, x, x0 };
    x = keep(SAMPLERS[sampler]({ x, x0, here, next, before, noise: () => noise(t) }), t, next);
    before = { x0, here };
  }
  yield { t: 0, x, x0: x };
}
