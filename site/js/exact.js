// Mirrors `dataset_denoiser` of ddpm_course/exact.py (page 04) in the plane; test_plane compares them. All points are flat: x, y, x, y, ...
import { normal } from './noise.js';

const LESSON = 9;

/** E[x_0 | x_t] for each place, if x_0 is one of the points, each as likely. */
export function denoise(places, points, abar) {
  const out = new Float64Array(places.length), N = points.length / 2, signal = Math.sqrt(abar), near = new Float64Array(N);
  for (let k = 0; k < places.length; k += 2) {
    let top = -Infinity, sum = 0, x = 0, y = 0;
    for (let i = 0; i < N; i++) {
      const dx = places[k] - signal * points[2 * i], dy = places[k + 1] - signal * points[2 * i + 1];
      top = Math.max(top, near[i] = -(dx * dx + dy * dy) / (2 * (1 - abar)));
    }
    for (let i = 0; i < N; i++) {
      const weight = Math.exp(near[i] - top);
      sum += weight; x += weight * points[2 * i]; y += weight * points[2 * i + 1];
    }
    out[k] = x / sum; out[k + 1] = y / sum;
  }
  return out;
}

/** The loss of the exact denoiser, for v, by draws of point, t and noise: no network has a smaller one on these points. */
export function leastLoss(points, abars, draws = 600) {
  const eps = normal(2 * draws, 0, LESSON, 0, 1);
  let sum = 0;
  for (let k = 0; k < draws && points.length; k++) {
    const abar = abars[Math.floor((k + 0.5) * abars.length / draws)], i = k * 7919 % (points.length / 2) * 2, x0 = points.slice(i, i + 2);
    const seen = denoise(x0.map((v, d) => Math.sqrt(abar) * v + Math.sqrt(1 - abar) * eps[2 * k + d]), points, abar);
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
    let best = Infinity, which = 0;
    for (let i = 0; i < points.length; i += 2) {
      const far = (places[k] - points[i]) ** 2 + (places[k + 1] - points[i + 1]) ** 2;
      if (far < best) [best, which] = [far, i / 2];
    }
    copies += which < known;
    all.push(Math.sqrt(best));
  }
  return [2 * copies / places.length, all.sort((a, b) => a - b)[all.length >> 1]];
}
