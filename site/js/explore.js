// Explorers inside the lessons: what those of JupyterLab do with a kernel, in the page.
import { chart, load, picture, sliders } from './chart.js';
import { denoise, mean, weigh } from './exact.js';
import { PURPOSE, normal } from './noise.js';
import { SCHEDULES, noised, running, trailing, walk } from './sampler.js';

const { LESSON } = PURPOSE, grid = (from, to, n) => Array.from({ length: n }, (_, i) => from + i * (to - from) / (n - 1));
const bell = (x, mean, variance) => Math.exp(-((x - mean) ** 2) / (2 * variance)) / Math.sqrt(2 * Math.PI * variance);
const image = bytes => Array.from(bytes, v => v / 127.5 - 1);

const EXPLORERS = {
  async schedules(section, canvas) {                                    // 02
    const { three } = await load('digits.json'), eps = normal(784, 0, LESSON, 2, 0), curve = canvas(720, 300), strip = canvas(), columns = grid(0, 1, 9);
    const power = v => (10 ** v).toPrecision(2);
    sliders(section, { schedule: ['linear', 'cosine'], T: [1.32, 3.602, 0.002, 3, v => Math.round(10 ** v)],
      'first beta': [-5, -1, 0.05, -4, power], 'last beta': [-3, -0.1, 0.05, Math.log10(0.02), power] }, v => {
      const [kind, power10, first, last] = Object.values(v), T = Math.round(10 ** power10);
      const abars = kind === 'linear' ? running(T, t => 10 ** first + (10 ** last - 10 ** first) * t / (T - 1)) : SCHEDULES.cosine(T);
      chart(curve, { x: [0, 1], y: [0, 1], label: `t / T; curve: image left, ᾱ, at the end ${abars[T - 1].toPrecision(2)}` })
        .curve(grid(0, 1, T), abars);
      const parts = columns.map(u => noised(image(three), abars[Math.round(u * (T - 1))], eps));
      picture(strip, Array.from({ length: 9 * 784 }, (_, i) => parts[Math.floor(i % 252 / 28)][Math.floor(i / 252) * 28 + i % 28]), 252, 28);
    });
  },
  async both(section, canvas) {                                         // 03: a digit under two schedules
    const { mystery } = await load('digits.json'), eps = normal(784, 0, LESSON, 5000, 0), kinds = ['linear', 'cosine'].map(kind => [kind, canvas(0, 0, kind)]);
    sliders(section, { t: [1, 1000, 1, 1000] }, ({ t }) => kinds.forEach(([kind, place]) =>
      picture(place, noised(image(mystery), SCHEDULES[kind](1000)[t - 1], eps), 28, 28)));
  },
  bells(section, canvas) {                                              // 03: the posterior as a product
    const abars = SCHEDULES.linear(25), place = canvas(720, 320), xs = grid(-3, 3, 601);
    sliders(section, { 'x_0': [-1.5, 1.5, 0.1, 0.8], 'x_t': [-1.5, 1.5, 0.1, 0.1], t: [3, 25, 1, 3] }, v => {
      const [x0, xt, t] = Object.values(v), before = abars[t - 2], alpha = abars[t - 1] / before;
      const prior = xs.map(x => bell(x, Math.sqrt(before) * x0, 1 - before));
      const likelihood = xs.map(x => bell(x, xt / Math.sqrt(alpha), (1 - alpha) / alpha));
      const product = prior.map((p, i) => p * likelihood[i]), area = product.reduce((a, b) => a + b) * 0.01;
      const c = chart(place, { x: [-3, 3], y: [0, 2.6], label: `x_${t - 1}: prior from x_0 (line), likelihood of x_${t} (dashed), posterior (thick grey)` });
      c.curve(xs, product.map(p => p / area), 'text-muted');
      c.curve(xs, prior);
      c.curve(xs, likelihood, 'primary', [6, 4]);
      c.dot(x0, 0.03);
      c.dot(xt, 0.03, 'primary');
    });
  },
  weights(section, canvas) {                                            // 04: five numbers
    const five = [-1.1, -0.9, -0.7, 0.3, 0.5], abars = SCHEDULES.cosine(100), place = canvas(720, 280);
    sliders(section, { 'x_t': [-1.4, 1, 0.1, 0.3], t: [1, 100, 1, 5] }, v => {
      const [x, t] = Object.values(v), weights = weigh([x], five, abars[t - 1]), best = mean(weights, five, 1)[0];
      const c = chart(place, { x: [-1.4, 1], y: [0, 1], label: `weights of the five; the best answer (dot) is ${best.toFixed(2)}` });
      c.bars(five, weights);
      c.dot(best, 0.02);
    });
  },
  async field(section, canvas) {                                        // 04: arrows to the answers
    const { points } = await load('digits.json'), abars = SCHEDULES.cosine(1000), place = canvas(520, 520), ways = grid(-0.8, 0.8, 12).flatMap(x => grid(-0.8, 0.8, 12).map(y => [x, y]));
    sliders(section, { t: [1, 1000, 1, 100] }, ({ t }) => {
      const c = chart(place, { x: [-0.9, 0.9], y: [-0.9, 0.9], label: `from each place to the answer there, x_${t}` });
      const goals = denoise(ways.flat(), points, abars[t - 1]);
      ways.forEach((from, k) => c.arrow(from, goals.slice(2 * k, 2 * k + 2)));
      for (let k = 0; k < points.length; k += 2) c.dot(points[k], points[k + 1], 'primary');
      ways.forEach((_, k) => c.dot(goals[2 * k], goals[2 * k + 1], 'text-base', 2.5));
    });
  },
  async attention(section, canvas) {                                    // 06: one query, 4,500 keys
    const all = image(new Uint8Array(await load('digits16.bin', 'arrayBuffer'))), unseen = all.splice(-256);
    const eps = normal(256, 0, LESSON, 3, 0), places = ['query', 'answer', 'best match'].map(name => canvas(0, 0, name)), below = canvas(720, 220);
    sliders(section, { t: [1, 1000, 1, 550], times: [-1, 1.5, 0.05, 0, v => (10 ** v).toPrecision(2)] }, v => {
      const abar = SCHEDULES.cosine(1000)[v.t - 1], xt = noised(unseen, abar, eps), weights = weigh(xt, all, abar, 10 ** v.times);
      const answer = mean(weights, all, 256), ten = [...weights].sort((a, b) => b - a).slice(0, 10), match = 256 * weights.indexOf(ten[0]);
      [xt, answer, all.slice(match, match + 256)].forEach((x, k) => picture(places[k], x, 16));
      chart(below, { x: [0, 12], y: [-4, 0], label: `log10 of the ten largest weights, at temperature ${(10 ** v.times * (1 - abar) / Math.sqrt(abar)).toPrecision(2)}` })
        .bars(ten.map((_, i) => i + 1), ten.map(w => Math.max(-4, Math.log10(w))));
      section.found = answer;
    });
  },
  async flow(section, canvas) {                                         // 17: each noise keeps the mark of its quarter
    const { more } = await load('digits.json'), points = more.map(v => 2 * v), abars = SCHEDULES.cosine(1000), cloud = normal(800, 0, LESSON, 1, 0);
    const steps = [...walk((x, t) => denoise(x, points, abars[t]), cloud, { sampler: 'ddim', abars, indices: trailing(1000, 40) })];
    const place = canvas(520, 520);
    sliders(section, { step: [0, 40, 1, 32] }, ({ step }) => {
      const { t, x } = steps[step], c = chart(place, { x: [-2.6, 2.6], y: [-2.6, 2.6], label: `t = ${t}` });
      for (let k = 0; k < points.length; k += 2) c.dot(points[k], points[k + 1], 'border', 3);
      for (let k = 0; k < x.length; k += 2) c.mark(x[k], x[k + 1], '●■▲◆'[2 * (cloud[k] > 0) + (cloud[k + 1] > 0)], cloud[k] > 0 ? 'primary' : 'text-base');
      section.found = steps[40].x;
    });
  },
};

for (const section of document.querySelectorAll('.explore')) {
  EXPLORERS[section.dataset.kind](section, (width, height, name) => {          // a chart so wide and high, or a picture
    section.insertAdjacentHTML('beforeend', name ? `<figure><canvas></canvas><figcaption>${name}</figcaption></figure>` : '<canvas></canvas>');
    const canvas = Object.assign([...section.querySelectorAll('canvas')].at(-1), { role: 'img', ariaLabel: section.ariaLabel });
    if (height) [canvas.width, canvas.height] = [Math.min(width, section.clientWidth - 24), Math.min(height, section.clientWidth - 24)];
    return canvas;
  });
}
