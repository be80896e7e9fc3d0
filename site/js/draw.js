// The cover: asks two workers for pictures, and shows what comes; the slider walks through what came.
import { picture as paint } from './chart.js';
import { noiseOf, readConfig } from './network.js';
import { pack, pad, unpack } from './pad.js';

const section = document.getElementById('draw'), PICTURES = 10, MODELS = { digits: 'model', faces: 'faces' };
section.innerHTML = `
  <div class="stage"><div>
    <div class="pictures"></div>
    <label class="walk"><span>noise</span>
      <input id="step" type="range" min="0" max="10" value="0" aria-label="step of the walk"><span>picture</span></label>
    <p id="status" role="status"></p></div>
    <div><span>Draw here, or click a picture:</span><div id="pad"></div>
      <label>how much is drawn anew <input id="strength" type="range" min="0.1" max="1" step="0.1" value="0.6"><output for="strength">0.6</output></label></div></div>
  <form class="controls">
    <button type="button" id="others">Draw others</button> <button type="button" id="stop">Stop</button>
    <label>model <select id="model">${Object.keys(MODELS).map(name => `<option>${name}`).join('')}</select></label>
    <label>class <select id="class"></select></label>
    <label id="two">and <select id="also"></select></label>
    <label>guidance <input id="guidance" type="range" min="0" max="6" step="0.25" value="2"><output for="guidance">2</output></label>
    <label>show <select id="shown"><option value="x">the picture so far<option value="x0">what the network predicts</select></label>
    <button type="button" id="link">Copy a link to this</button>
  </form>
  <p class="small">The package draws the same pictures, except for rounding: <code id="line"></code></p>
  <details><summary>Exact settings, and your own model</summary>
    <div class="controls">
      <label>seed <input id="seed" type="number" min="0" max="4294967295" value="1"></label>
      <label>sampler <select id="sampler"><option>ddim<option>dpm<option>ddpm</select></label>
      <label>steps <input id="steps" type="number" min="2" max="200" value="10"></label></div>
    <p>Your own model is two files of a run that you have trained, <code>config.json</code> and, from its newest checkpoint,
    <code>ema.safetensors</code>: other classes, sizes and colours, too. Nothing leaves your machine.</p>
    <label>both files <input id="files" type="file" multiple accept=".json,.safetensors"></label></details>`;
const $ = id => document.getElementById(id), say = text => { $('status').textContent = text; };
const still = matchMedia('(prefers-reduced-motion: reduce)').matches, KEPT = ['class', 'also', 'guidance', 'seed', 'sampler', 'steps', 'strength'], ASKED = [...KEPT, 'shown'];

// Each worker draws every second picture.
const count = Math.min(2, navigator.hardwareConcurrency || 1), each = Array.from({ length: PICTURES }, (_, i) => i);
const workers = each.slice(0, count).map(() => new Worker(new URL('worker.js', import.meta.url), { type: 'module' }));
let drawing = null, latest = 0, kernel = null, own = false, facts = null, job = null, frames = [], link = '';
let wanted = new URLSearchParams(location.hash.includes('model=') ? location.hash.slice(1) : '');      // else a place on the page

const columns = each.map(i => {
  const column = document.createElement('figure'), canvas = Object.assign(document.createElement('canvas'), { role: 'img', ariaLabel: `picture ${i + 1} of ${PICTURES}` });
  column.append(canvas, document.createElement('figcaption'));
  canvas.onclick = () => {
    const picture = frames.at(-1)?.t === 0 && frames.at(-1).x[i];
    if (!picture) return;
    drawing.picture = picture;
    drawing.marking();
    say('Mark on it, with mouse or finger, what is to be drawn anew.');
    $('pad').scrollIntoView({ block: 'nearest' });
  };
  return column;
});
section.querySelector('.pictures').append(...columns);

const put = pictures => columns.forEach((column, i) => paint(column.children[0], pictures[i], facts.size));
function show(k) {
  const frame = frames[k];
  if (!frame || frame.missing) return;
  $('step').value = k;
  $('step').setAttribute('aria-valuetext', `t = ${frame.t}`);
  put(frame[$('shown').value]);
  return frame;
}

/** Tell all workers; `mine(w)` is what worker w gets, `heard` what is done with each of its answers. */
function ask(mine, heard) {
  const id = ++latest;
  workers.forEach((worker, w) => {
    worker.postMessage({ id, ...mine(w) });
    worker.onmessage = ({ data }) => {
      if (data.id !== latest) return;
      if (data.error) { say(data.error); section.dataset.state = 'error'; } else heard(data, w);
    };
  });
}

async function load(config, weights) {
  try {
    ask(() => ({}));                            // what is being drawn is of another model
    meet(readConfig(config));                   // noise is there before the weights are
    kernel ??= await get('matmul.wasm');
    weights = await weights;
    ask(() => ({ files: [config, weights, kernel] }), draw);
  } catch (error) { say(error.message); }
}
async function get(name) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`${name} could not be loaded.`);
  return answer.arrayBuffer();
}
async function choose(name) {
  own = false;
  section.dataset.state = 'loading';
  $('model').value = name;
  say('Loading the network (1.3 MB) …');
  try {
    load(JSON.parse(new TextDecoder().decode(await get(`${MODELS[name]}/config.json`))), get(`${MODELS[name]}/ema.safetensors`));
  } catch (error) { say(error.message); }
}

/** A model is known: its menus, a pad of its size, its noise; and what the link asks for. */
function meet(known) {
  facts = known;
  const names = facts.classes.map((c, i) => new Option(c, i)), again = () => names.map(option => option.cloneNode(true));
  $('class').replaceChildren(new Option('each', ''), ...names);
  $('also').replaceChildren(new Option('no other', ''), ...again());
  $('class').disabled = !facts.classes.length;
  $('two').hidden = facts.channels === 1 || !facts.canGuide;
  $('guidance').disabled = !facts.canGuide;
  drawing = pad($('pad'), facts.size, facts.channels, draw);
  ASKED.filter(id => wanted.has(id)).forEach(id => { $(id).value = wanted.get(id); });
  try {
    for (const name of ['picture', 'mask']) if (wanted.has(name)) drawing[name] = name === 'mask' ? unpack(wanted.get(name)).map(v => v > 0) : unpack(wanted.get(name));
  } catch { say('The drawing of this link is damaged.'); }
  wanted = new URLSearchParams();
  read();
  const length = facts.channels * facts.size ** 2, noise = noiseOf(job, length);
  put(each.map(i => noise.subarray(i * length, (i + 1) * length)));
}

/** The settings as a job, and beside it the line and the link that say the same. */
function read() {
  const number = id => $(id).value = Math.min($(id).max, Math.max($(id).min, Math.round(+$(id).value || 0)));
  const chosen = $('class').value, known = facts.classes.length, also = chosen !== '' && !$('two').hidden && $('also').value !== '' ? +$('also').value : undefined;
  const free = !known || also !== undefined;            // the package's model of two classes has none
  job = {
    seed: number('seed'), steps: number('steps'), sampler: $('sampler').value, guidance: facts.canGuide ? +$('guidance').value : 1, also,
    classes: each.map(i => chosen !== '' ? +chosen : known ? i % known : i),
    columns: each.map(i => free ? i : chosen !== '' ? +chosen : i % known),
    rows: each.map(i => free ? 0 : chosen !== '' ? i : Math.floor(i / known)),
    picture: drawing.picture, mask: drawing.picture && drawing.mask, strength: drawing.picture && !drawing.mask ? +$('strength').value : 1,
  };
  $('strength').disabled = !job.picture || !!job.mask;
  for (const id of ['guidance', 'strength']) document.querySelector(`output[for=${id}]`).value = $(id).value;
  columns.forEach((column, i) => { column.children[1].textContent = job.guidance === 0 ? '' : [facts.classes[job.classes[i]], facts.classes[also]].filter(Boolean).join(', '); });
  const named = chosen === '' ? facts.classes.slice(0, PICTURES) : facts.classes[chosen], classes = known ? `--classes ${named} ` : '';
  const model = own ? 'RUN ' : $('model').value === 'faces' ? 'ddpm_course/assets/faces16 ' : '';
  $('line').textContent = also === undefined
    ? `ddpm sample ${model}${classes}--n ${Math.max(...job.rows) + 1} --sampler ${job.sampler} --steps ${job.steps} `
      + `--guidance ${job.guidance} --seed ${job.seed} --precision fp32`
      + (job.picture ? ` --from DRAWING.png${job.mask ? ' --mask MASK.png' : ` --strength ${job.strength}`}` : '')
    : `sample(compose(model, ['${facts.classes[chosen]}', '${facts.classes[also]}'], ${job.guidance}), n=1)`;
  link = `#${new URLSearchParams([['model', $('model').value], ...ASKED.map(id => [id, $(id).value]),
    ...['picture', 'mask'].filter(name => job[name]).map(name => [name, pack(name === 'mask' ? [...job.mask].map(on => on ? 1 : -1) : job.picture)])])}`;
  $('link').disabled = own;                     // its files are not in a link
}

function draw() {
  read();
  const mine = w => each.filter(i => i % count === w), part = (w, list) => mine(w).map(i => list[i]);
  frames = [];
  $('step').max = Math.max(1, Math.round(job.strength * job.steps));
  section.dataset.state = 'drawing';
  const began = performance.now();
  ask(w => ({ job: { ...job, classes: part(w, job.classes), columns: part(w, job.columns), rows: part(w, job.rows) } }), ({ k, t, x, x0 }, w) => {
    const frame = frames[k] ??= { t, x: [], x0: [], missing: PICTURES }, length = x.length / mine(w).length;
    mine(w).forEach((i, j) => {
      [frame.x[i], frame.x0[i]] = [x, x0].map(all => all.subarray(j * length, (j + 1) * length));
      frame.missing--;
    });
    if (frame.missing) return;
    if (!still || t === 0) show(k);
    say(t ? `Step ${k + 1} of ${$('step').max}`
      : `Done in ${((performance.now() - began) / 1000).toFixed(1)} seconds. Move the slider to walk back; click a picture to change a part of it.`);
    if (t === 0) Object.assign(section, { frames, job }).dataset.state = 'done';
  });
}

$('step').oninput = $('shown').onchange = () => {
  const frame = show(+$('step').value);
  if (frame) say(`t = ${frame.t}: ${$('shown').selectedOptions[0].text}`);
};
for (const id of ['guidance', 'strength']) $(id).oninput = () => { document.querySelector(`output[for=${id}]`).value = $(id).value; };
for (const id of KEPT) $(id).onchange = draw;
section.querySelector('form').onsubmit = event => { event.preventDefault(); draw(); };
$('others').onclick = () => { $('seed').value = +$('seed').value + 1; draw(); };
$('stop').onclick = () => { ask(() => ({})); section.dataset.state = 'stopped'; say('Stopped.'); };
$('link').onclick = () => {
  history.replaceState(null, '', link);
  const said = where => () => { $('link').textContent = `It is in the ${where}`; };
  navigator.clipboard.writeText(location.href).then(said('clipboard'), said('address bar'));
};
$('model').onchange = () => choose($('model').value);
$('files').onchange = async () => {
  const chosen = [...$('files').files], [config, weights] = ['.json', '.safetensors'].map(end => chosen.find(file => file.name.endsWith(end)));
  if (!config || !weights) { say('Choose both files at once: config.json and ema.safetensors.'); return; }
  say('Reading your model …');
  own = true;
  load(JSON.parse(await config.text()), weights.arrayBuffer());
};
choose(MODELS[wanted.get('model')] ? wanted.get('model') : 'digits');
