// Training off the page's own thread: { id, points, abars, seed, steps } begins anew, no points end it; { id, n, losses, layers }
// comes four times a second, with the mean losses of every ten steps since.
import { trainer } from './mlp.js';
import { serve } from './serve.js';

serve(function* ({ points, abars, seed, steps }) {
  const { step, mean } = trainer(points, abars, seed);
  let losses = [], sum = 0;
  for (let n = 1, told = 0; points.length && n <= steps; n++) {
    sum += step();
    if (n % 10 === 0) losses.push(sum / 10), sum = 0;
    if (performance.now() - told < 250 && n < steps) continue;
    told = performance.now();
    yield { n, losses, layers: mean };
    losses = [];
  }
});
