// Training off the page's own thread: { points, abars, seed, steps } begins anew, no points end it; { n, losses, layers } comes
// four times a second, with the mean losses of every ten steps since.
import { trainer } from './mlp.js';

let latest = 0;
onmessage = async ({ data: { points, abars, seed, steps } }) => {
  const mine = ++latest;
  if (!points.length) return;
  const { step, mean } = trainer(points, abars, seed);
  let losses = [], sum = 0;
  for (let n = 1, told = 0; n <= steps && mine === latest; n++) {
    sum += step();
    if (n % 10 === 0) losses.push(sum / 10), sum = 0;
    if (performance.now() - told > 250 || n === steps) {
      told = performance.now();
      postMessage({ mine, n, losses, layers: mean });
      losses = [];
      await new Promise(go => setTimeout(go));                                  // new points are heard here
    }
  }
};
