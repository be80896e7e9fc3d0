// The cover: asks two workers for pictures, and shows what comes; the slider walks through what came.
import { load, picture as paint } from './chart.js';
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
let drawing = null, latest = 0, facts = null, job = null, frames = [], link = '';
let wanted = new URLSearchParams(location.hash.includes('model=') ? location.hash.slice(1) : '');      // else a place on the page

const columns = each.map(i => {
  const column = document.createElement('figure');
  column.innerHTML = `<canvas role="img" aria-label="picture ${i + 1} of ${PICTURES}"></canvas><figcaption></figcaption>`;
  column.firstChild.onclick = () => {
    if (section.dataset.state !== 'done') return;
    drawing.picture = frames.at(-1).x[i];
    $('pad').querySelector('select').value = 'mask';
    say('Mark on it, with mouse or finger, what is to be drawn anew.');
    $('pad').scrollIntoView({ block: 'nearest' });
  };
  return column;
});
section.querySelector('.pictures').append(...columns);

const put = pictures => columns.forEach((column, i) => paint(column.firstChild, pictures[i], facts.size));
function show(k) {
  const frame = frames[k];
  if (!frame || frame.missing) return;
  Object.assign($('step'), { value: k, ariaValueText: `t = ${frame.t}` });
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

/** A model from its two files, which may be on their way. */
async function open(name, config, weights) {
  section.dataset.state = 'loading';
  $('model').value = name;                      // of one's own: ''
  say('Loading the network …');
  try {
    ask(() => ({}));                            // what is being drawn is of another model
    meet(readConfig(await config));             // noise is there before the weights are
    const files = [await config, await weights, await load('matmul.wasm', 'arrayBuffer')];
    ask(() => ({ files }));
    draw();                                     // a job waits for the files
  } catch (error) { say(error.message); }
}
const choose = name => open(name, load(`${MODELS[name]}/config.json`), load(`${MODELS[name]}/ema.safetensors`, 'arrayBuffer'));

/** A model is known: its menus, a pad of its size, its noise; and what the link asks for. */
function meet(known) {
  facts = known;
  for (const [id, none] of [['class', 'each'], ['also', 'no other']])
    $(id).replaceChildren(new Option(none, ''), ...facts.classes.map((name, i) => new Option(name, i)));
  $('class').disabled = !facts.classes.length;
  $('two').hidden = facts.channels === 1 || !facts.canGuide;
  $('guidance').disabled = !facts.canGuide;
  drawing = pad($('pad'), facts.size, facts.channels, draw);
  ASKED.filter(id => wanted.has(id)).forEach(id => { $(id).value = wanted.get(id); });
  if (wanted.has('picture')) drawing.picture = unpack(wanted.get('picture'));
  if (wanted.has('mask')) drawing.mask = unpack(wanted.get('mask')).map(v => v > 0.5);
  wanted = new URLSearchParams();
  read();
  const length = facts.channels * facts.size ** 2, noise = noiseOf(job, length);
  put(each.map(i => noise.subarray(i * length, (i + 1) * length)));
}

const note = () => { for (const output of section.querySelectorAll('output')) output.value = $(output.htmlFor).value; };

/** The settings as a job, and beside it the line and the link that say the same. */
function read() {
  const number = id => $(id).value = Math.min($(id).max, Math.max($(id).min, Math.round(+$(id).value || 0)));
  const { classes, canGuide } = facts, chosen = $('class').value, known = classes.length, { picture, mask } = drawing;
  const also = chosen === '' || $('two').hidden || $('also').value === '' ? undefined : +$('also').value;
  const free = !known || also !== undefined;            // the package's model of two classes has none
  const plain = classes.indexOf('short'), base = plain < 0 ? known : plain;     // a base that has neither part: page 22
  job = {
    seed: number('seed'), steps: number('steps'), sampler: $('sampler').value, guidance: canGuide ? +$('guidance').value : 1, also, base,
    classes: each.map(i => chosen !== '' ? +chosen : known ? i % known : i),
    columns: each.map(i => free ? i : chosen !== '' ? +chosen : i % known),
    rows: each.map(i => free ? 0 : chosen !== '' ? i : Math.floor(i / known)),
    picture, mask: picture && mask, strength: picture && !mask ? +$('strength').value : 1,
  };
  $('strength').disabled = !picture || !!mask;
  note();
  columns.forEach((column, i) => { column.lastChild.textContent = job.guidance === 0 ? '' : [classes[job.classes[i]], classes[also]].filter(Boolean).join(', '); });
  const model = { digits: '', faces: 'ddpm_course/assets/faces16 ', '': 'RUN ' }[$('model').value];
  const named = known ? `--classes ${chosen === '' ? classes.slice(0, PICTURES) : classes[chosen]} ` : '';
  const from = picture ? ` --from DRAWING.png ${mask ? '--mask MASK.png' : `--strength ${job.strength}`}` : '';
  $('line').textContent = also !== undefined ? `sample(compose(model, ['${classes[chosen]}', '${classes[also]}'], ${job.guidance}${plain < 0 ? '' : ", 'short'"}), `
      + `how=SamplingConfig(sampler='${job.sampler}', steps=${job.steps}, seed=${job.seed}))`
    : `ddpm sample ${model}${named}--n ${Math.max(...job.rows) + 1} --sampler ${job.sampler} --steps ${job.steps} `
      + `--guidance ${job.guidance} --seed ${job.seed} --precision fp32${from}`;
  const drawn = Object.entries({ picture, mask: job.mask }).filter(([, a]) => a).map(([name, a]) => [name, pack(a)]);
  link = `#${new URLSearchParams([...['model', ...ASKED].map(id => [id, $(id).value]), ...drawn])}`;
  $('link').textContent = 'Copy a link to this';
  $('link').disabled = !$('model').value;       // one's own files are not in a link
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
section.oninput = note;
for (const id of KEPT) $(id).onchange = draw;
section.querySelector('form').onsubmit = event => { event.preventDefault(); draw(); };
$('others').onclick = () => { $('seed').value++; draw(); };
$('stop').onclick = () => { ask(() => ({})); section.dataset.state = 'stopped'; say('Stopped.'); };
$('link').onclick = () => {
  history.replaceState(null, '', link);
  const said = where => () => { $('link').textContent = `It is in the ${where}`; };
  navigator.clipboard.writeText(location.href).then(said('clipboard'), said('address bar'));
};
$('model').onchange = () => choose($('model').value);
$('files').onchange = () => {
  const [config, weights] = ['.json', '.safetensors'].map(end => [...$('files').files].find(file => file.name.endsWith(end)));
  if (config && weights) open('', config.text().then(JSON.parse), weights.arrayBuffer());
  else say('Choose both files at once: config.json and ema.safetensors.');
};
choose(wanted.get('model') in MODELS ? wanted.get('model') : 'digits');
