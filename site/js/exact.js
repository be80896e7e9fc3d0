// Mirrors `dataset_denoiser` of ddpm_course/exact.py (page 04) in the plane; test_plane compares them. All points are flat: x, y, x, y, ...

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

/** The share of places whose nearest point is one of the first `known` points, of which each is as dense as the others. */
export function shareOfCopies(places, points, known) {
  let copies = 0;
  for (let k = 0; k < places.length; k += 2) {
    let best = Infinity, which = 0;
    for (let i = 0; i < points.length; i += 2) {
      const far = (places[k] - points[i]) ** 2 + (places[k + 1] - points[i + 1]) ** 2;
      if (far < best) [best, which] = [far, i / 2];
    }
    copies += which < known;
  }
  return 2 * copies / places.length;
}

/** n normal numbers (Box and Muller 1958). */
export const gauss = n => Float64Array.from({ length: n },
  () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()));
