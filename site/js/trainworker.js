// Training off the page's own thread: { points, abars } begins anew, no points end it; { n, loss, layers } comes four
// times a second.
import { trainer } from './mlp.js';

let latest = 0;
onmessage = async ({ data: { points, abars } }) => {
  const mine = ++latest;
  if (!points.length) return;
  const { step, mean } = trainer(points, abars);
  let loss = 1;
  for (let n = 0, told = 0; n < 20000 && mine === latest; n++) {
    loss += 0.02 * (step() - loss);
    if (performance.now() - told > 250) {
      told = performance.now();
      postMessage({ n, loss, layers: mean });
      await new Promise(go => setTimeout(go));                                  // new points are heard here
    }
  }
};
