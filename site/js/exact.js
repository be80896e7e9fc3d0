// Mirrors `dataset_denoiser` of ddpm_course/exact.py (page 04) in the plane; test_plane compares them. All points are flat: x, y, x, y, ...
import { PURPOSE, normal } from './noise.js';
import { noised } from './sampler.js';

/** The weights of all points (D numbers each, flat) at a place of D numbers, if x_0 is one of them, each as likely; softer at
 *  higher temperature. */
export function weigh(place, points, abar, temperature = 1) {
  const D = place.length, signal = Math.sqrt(abar), scores = new Float64Array(points.length / D);
  points.forEach((v, i) => { scores[Math.floor(i / D)] -= (place[i % D] - signal * v) ** 2 / (2 * (1 - abar) * temperature); });
  return softmax(scores);
}

export function softmax(scores) {
  const top = scores.reduce((a, b) => Math.max(a, b)), raised = scores.map(s => Math.exp(s - top)), sum = raised.reduce((a, b) => a + b);
  return raised.map(s => s / sum);
}

/** The mean of points of D numbers, with weights. */
export function mean(weights, points, D) {
  const out = new Float64Array(D);
  weights.forEach((w, i) => { for (let d = 0; d < D; d++) out[d] += w * points[D * i + d]; });
  return out;
}

/** E[x_0 | x_t] for each place of the plane. */
export function denoise(places, points, abar) {
  const out = new Float64Array(places.length);
  for (let k = 0; k < places.length; k += 2) out.set(mean(weigh(places.slice(k, k + 2), points, abar), points, 2), k);
  return out;
}

/** The loss of the exact denoiser, for v, by draws of point, t and noise: no network has a smaller one on these points. */
export function leastLoss(points, abars, draws = 600) {
  const eps = normal(2 * draws, 0, PURPOSE.LESSON, 0, 1);
  let sum = 0;
  for (let k = 0; k < draws && points.length; k++) {
    const abar = abars[Math.floor((k + 0.5) * abars.length / draws)], i = k * 7919 % (points.length / 2) * 2, x0 = points.slice(i, i + 2);
    const seen = denoise(noised(x0, abar, eps.subarray(2 * k, 2 * k + 2)), points, abar);
    sum += ((seen[0] - x0[0]) ** 2 + (seen[1] - x0[1]) ** 2) / (1 - abar);
  }
  return sum / (2 * draws);
}

/** Of places: the share whose nearest point is one of the first `known` points, which are as dense as the others; and how far
 *  that is, the median. */
export function nearest(places, points, known) {
  const all = [];
  let copies = 0;
  for (let k = 0; k < places.length; k += 2) {
    const far = Array.from({ length: points.length / 2 }, (_, i) => Math.hypot(places[k] - points[2 * i], places[k + 1] - points[2 * i + 1]));
    all.push(Math.min(...far));
    copies += far.indexOf(all.at(-1)) < known;
  }
  return [2 * copies / places.length, all.sort((a, b) => a - b)[all.length >> 1]];
}
