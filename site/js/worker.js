// Pictures, off the page's own thread. { id, files } loads a model, [config, weights, kernel]; { id, job } gives
// { id, k, t, x, x0 } for each step; { id } ends the job at work.
import { loadModel } from './network.js';
import { serve } from './serve.js';

let model;
serve(async function* ({ files, job }) {
  if (files) {
    model = loadModel(...files);
    await model;
    yield {};
  }
  let k = 0;
  if (job) for (const { t, x, x0 } of (await model).samples(job)) yield { k: k++, t, x, x0 };
});
