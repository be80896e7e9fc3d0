// Pictures, off the page's own thread. { id, files } loads a model, [config, weights, kernel]; { id, job } gives
// { id, k, t, x, x0 } for each step. A newer message ends the job at work; { id } does no more than that.
import { loadModel } from './network.js';

let model, latest;
onmessage = async ({ data: { id, files, job } }) => {
  latest = id;
  try {
    if (files) await (model = loadModel(...files));
    let k = 0;
    if (job) for (const { t, x, x0 } of (await model).samples(job)) {
      postMessage({ id, k: k++, t, x, x0 });
      await new Promise(go => setTimeout(go));                  // a newer message is heard here
      if (id !== latest) return;
    }
  } catch (error) { postMessage({ id, error: error.message }); }
};
