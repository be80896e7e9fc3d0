// The cover: asks two workers for pictures, and shows what comes; the slider walks through what came.
import { pad } from './pad.js';

const section = document.getElementById('draw'), PICTURES = 10;
section.innerHTML = `
  <div class="pictures"></div>
  <label class="walk"><span>noise</span>
    <input id="step" type="range" min="0" max="10" value="0" aria-label="step of the walk"><span>picture</span></label>
  <p id="status" role="status">Loading the network (1.3 MB) …</p>
  <form class="controls">
    <button type="button" id="others">Draw others</button>
    <label>class <select id="class"></select></label>
    <label>seed <input id="seed" type="number" min="0" max="4294967295" value="1"></label>
    <label>sampler <select id="sampler"><option>ddim<option>dpm<option>ddpm</select></label>
    <label>steps <input id="steps" type="number" min="2" max="200" value="10"></label>
    <label>guidance <input id="guidance" type="range" min="0" max="6" step="0.25" value="2"><output for="guidance">2</output></label>
  </form>
  <p class="small">The same pictures on the command line: <code id="line"></code></p>
  <details id="begin"><summary>Begin with a drawing of yours</summary>
    <div id="pad"></div>
    <label>how much is done anew <input id="strength" type="range" min="0.1" max="1" step="0.1" value="0.6"><output for="strength">0.6</output></label>
    <p>Draw a few strokes: they are noised so far, and the model walks back from there. Paint a mask over a part, and only
    that part is drawn anew. (Page 19 says how.)</p></details>
  <details id="own"><summary>Your own model</summary>
    <p>Two files of a run that you have trained, <code>config.json</code> and, from its newest checkpoint,
    <code>ema.safetensors</code>: other classes, sizes and colours, too. Nothing leaves your machine.</p>
    <label>both files <input id="files" type="file" multiple accept=".json,.safetensors"></label></details>`;
const $ = id => document.getElementById(id);
const still = matchMedia('(prefers-reduced-motion: reduce)').matches;

// Each worker draws every second picture.
const count = Math.min(2, navigator.hardwareConcurrency || 1);
const workers = Array.from({ length: count }, () => new Worker(new URL('worker.js', import.meta.url), { type: 'module' }));
let drawing = null, latest = 0, kernel = null, own = false, facts = null, job = null, frames = [];

const canvas = name => Object.assign(document.createElement('canvas'), { role: 'img', ariaLabel: name });
const columns = Array.from({ length: PICTURES }, () => {
  const column = document.createElement('figure');
  column.append(canvas('the picture at this step'), canvas('what the network sees in it'), document.createElement('figcaption'));
  return column;
});
section.querySelector('.pictures').append(...columns);

function paint(canvas, x) {
  const { size, channels } = facts, N = size * size, g = canvas.getContext('2d');
  if (canvas.width !== size) canvas.width = canvas.height = size;
  const image = g.createImageData(size, size);
  for (let i = 0; i < N; i++) for (let c = 0; c < 4; c++)
    image.data[4 * i + c] = c === 3 ? 255 : (x[(channels === 1 ? 0 : c * N) + i] + 1) * 127.5;
  g.putImageData(image, 0, 0);
}

function show(k) {
  const frame = frames[k];
  if (!frame || frame.missing) return;
  $('step').value = k;
  $('step').setAttribute('aria-valuetext', `t = ${frame.t}`);
  columns.forEach((column, i) => { paint(column.children[0], frame.x[i]); paint(column.children[1], frame.x0[i]); });
  return frame;
}

/** Tell all workers; `mine(w)` is what worker w gets, `heard` what is done with each of its answers. */
function ask(mine, heard) {
  const id = ++latest;
  workers.forEach((worker, w) => {
    worker.postMessage({ id, ...mine(w) });
    worker.onmessage = ({ data }) => {
      if (data.id !== latest) return;
      if (data.error) { $('status').textContent = data.error; section.dataset.state = 'error'; } else heard(data, w);
    };
  });
}

async function load(config, weights) {
  try {
    kernel ??= await get('matmul.wasm');
    ask(() => ({ files: [config, weights, kernel] }), meet);
  } catch (error) {
    $('status').textContent = error.message;
  }
}
async function get(name) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`${name} could not be loaded.`);
  return answer.arrayBuffer();
}

/** A model has been loaded, and says what it is. */
function meet(answer) {
  facts = answer.facts;
  $('class').replaceChildren(new Option('each', ''), ...facts.classes.map((c, i) => new Option(c, i)));
  $('class').disabled = !facts.classes.length;
  $('guidance').disabled = !facts.canGuide;
  drawing = facts.channels === 1 ? pad($('pad'), facts.size, draw) : null;
  $('begin').hidden = !drawing;
  draw();
}

function draw() {
  const number = id => $(id).value = Math.min($(id).max, Math.max($(id).min, Math.round(+$(id).value || 0)));
  const chosen = $('class').value, known = facts.classes.length, each = Array.from({ length: PICTURES }, (_, i) => i);
  document.querySelector('output[for=guidance]').value = $('guidance').value;
  job = {
    seed: number('seed'), steps: number('steps'), sampler: $('sampler').value, guidance: facts.canGuide ? +$('guidance').value : 1,
    classes: each.map(i => chosen !== '' ? +chosen : known ? i % known : i),
    rows: each.map(i => chosen !== '' ? i : known ? Math.floor(i / known) : 0),
    picture: drawing?.picture, mask: drawing?.picture && drawing.mask, strength: drawing?.picture ? +$('strength').value : 1,
  };
  document.querySelector('output[for=strength]').value = $('strength').value;
  columns.forEach((column, i) => { column.children[2].textContent = facts.classes[job.classes[i]] ?? ''; });
  const named = chosen === '' ? facts.classes.slice(0, PICTURES) : facts.classes[chosen], classes = known ? `--classes ${named} ` : '';
  $('line').textContent = `ddpm sample ${own ? 'RUN ' : ''}${classes}--n ${Math.max(...job.rows) + 1} --sampler ${job.sampler} `
    + `--steps ${job.steps} --guidance ${job.guidance} --seed ${job.seed} --precision fp32`
    + (job.picture ? ` --from DRAWING.png --strength ${job.strength}${job.mask ? ' --mask MASK.png' : ''}` : '');
  const mine = w => each.filter(i => i % count === w), part = w => list => mine(w).map(i => list[i]);
  frames = [];
  $('step').max = Math.max(1, Math.round(job.strength * job.steps));
  section.dataset.state = 'drawing';
  const began = performance.now();
  ask(w => ({ job: { ...job, classes: part(w)(job.classes), rows: part(w)(job.rows) } }), ({ k, t, x, x0 }, w) => {
    const frame = frames[k] ??= { t, x: [], x0: [], missing: PICTURES }, length = x.length / mine(w).length;
    mine(w).forEach((i, j) => {
      [frame.x[i], frame.x0[i]] = [x, x0].map(all => all.subarray(j * length, (j + 1) * length));
      frame.missing--;
    });
    if (frame.missing) return;
    if (!still || t === 0) show(k);
    $('status').textContent = t ? `Step ${k + 1} of ${$('step').max}`
      : `Done in ${((performance.now() - began) / 1000).toFixed(1)} seconds. Move the slider to walk back.`;
    if (t === 0) Object.assign(section, { frames, job }).dataset.state = 'done';
  });
}

$('step').oninput = () => {
  const frame = show(+$('step').value);
  if (frame) $('status').textContent = `t = ${frame.t}: above, the picture so far; below, what the network sees in it.`;
};
for (const id of ['class', 'seed', 'sampler', 'steps', 'guidance', 'strength']) $(id).onchange = draw;
section.querySelector('form').onsubmit = event => { event.preventDefault(); draw(); };
$('others').onclick = () => { $('seed').value = +$('seed').value + 1; draw(); };
$('files').onchange = async () => {
  const chosen = [...$('files').files], [config, weights] = ['.json', '.safetensors'].map(end => chosen.find(file => file.name.endsWith(end)));
  if (!config || !weights) { $('status').textContent = 'Choose both files at once: config.json and ema.safetensors.'; return; }
  $('status').textContent = 'Reading your model …';
  own = true;
  load(JSON.parse(await config.text()), await weights.arrayBuffer());
};
Promise.all([get('model/config.json'), get('model/ema.safetensors')])
  .then(([config, weights]) => load(JSON.parse(new TextDecoder().decode(config)), weights))
  .catch(error => { $('status').textContent = error.message; });
