// Points drawn by hand, and walkers that find them: with the exact denoiser, or with a network that learns meanwhile.
import { denoise, gauss, shareOfCopies } from './exact.js';
import { predict } from './mlp.js';
import { SCHEDULES, trailing, walk } from './sampler.js';

const section = document.getElementById('plane'), T = 1000, WALKERS = 300, STEPS = 60, REST = 45, WIDE = 2.2, MOST = 400;
section.innerHTML = `
  <canvas class="plane" width="720" height="720" tabindex="0" role="application"
    aria-label="A plane. Draw points with the mouse or a finger, or move with the arrow keys and press space."></canvas>
  <form class="controls">
    <button type="button" id="heart">A heart</button> <button type="button" id="three">A three</button> <button type="button" id="clear">Clear</button>
    <label>who answers <select id="who"><option value="exact">the exact denoiser<option value="network">a network, learning now</select></label>
    <label>schedule <select id="schedule"><option>cosine<option>linear</select></label>
    <label>show <select id="way"><option value="back">noise becomes points<option value="forth">points become noise</select></label>
  </form>
  <p id="facts"></p>`;
const $ = id => document.getElementById(id), canvas = section.querySelector('canvas'), g = canvas.getContext('2d');
const still = matchMedia('(prefers-reduced-motion: reduce)').matches, worker = new Worker(new URL('trainworker.js', import.meta.url), { type: 'module' });
const scale = canvas.width / (2 * WIDE), colour = name => getComputedStyle(document.documentElement).getPropertyValue(name);

let points = [], cursor = null, layers = null, story = null, resting = 0, walkers = null, level = 0, learned = '', copies = '';

// -- points: every second one is for training, the others only tell learning from copying
const known = () => points.filter((_, i) => i % 4 < 2), others = () => points.filter((_, i) => i % 4 > 1);
function changed() {
  layers = null;
  learned = copies = '';
  story = null;
  const points = $('who').value === 'network' ? known() : [];                     // without points the worker rests
  worker.postMessage({ points, abars: SCHEDULES[$('schedule').value](T) });
}
worker.onmessage = ({ data }) => {
  if ($('who').value !== 'network') return;                                       // it was on its way
  layers = data.layers;
  learned = `step ${data.n.toLocaleString('en')}, loss ${data.loss.toFixed(3)}`;
};
function add(x, y) {
  if (points.length < 2 * MOST) points.push(Math.max(-WIDE, Math.min(WIDE, x)), Math.max(-WIDE, Math.min(WIDE, y)));
}
function pointed(event) {
  const box = canvas.getBoundingClientRect(), at = (v, from, size) => (2 * (v - from) / size - 1) * WIDE;
  const all = event.getCoalescedEvents?.() ?? [];
  for (const e of all.length ? all : [event]) add(at(e.clientX, box.left, box.width), -at(e.clientY, box.top, box.height));
}
canvas.onpointerdown = event => { canvas.setPointerCapture(event.pointerId); pointed(event); };
canvas.onpointermove = event => { if (event.buttons) pointed(event); };
canvas.onpointerup = changed;
canvas.onkeydown = event => {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  cursor ??= [0, 0];
  if (move) cursor = cursor.map((v, d) => Math.max(-WIDE, Math.min(WIDE, v + 0.1 * move[d])));
  else if (event.key === ' ') { add(...cursor); changed(); } else return;
  event.preventDefault();
};
canvas.onblur = () => { cursor = null; };
function heart() {
  points = Array.from({ length: 160 }, (_, i) => 2 * Math.PI * (i * 61 % 160) / 160).flatMap(a =>
    [1.5 * Math.sin(a) ** 3, 1.5 * (13 * Math.cos(a) - 5 * Math.cos(2 * a) - 2 * Math.cos(3 * a) - Math.cos(4 * a)) / 16]);
  changed();
}
$('heart').onclick = heart;
$('three').onclick = async () => {
  const { more } = await (await fetch(new URL('digits.json', import.meta.url))).json();
  points = more.map(v => 2 * v);
  changed();
};
$('clear').onclick = () => { points = []; changed(); };
for (const id of ['who', 'schedule', 'way']) $(id).onchange = changed;

// -- the walk back (Algorithm 2 without noise on the way), or the jump forth, as a story of frames
function* back(abars) {
  const answer = $('who').value === 'exact' ? (x, t) => denoise(x, known(), abars[t]) : (x, t) => predict(layers, x, t, abars);
  const indices = [...trailing(T, STEPS), 11, 7, 4, 2, 1, 0];                    // small steps at the end: points lie close
  for (const { t, x } of walk(answer, gauss(2 * WALKERS), { sampler: 'ddim', abars, indices })) yield [t, x];
}
function* forth(abars) {
  const from = Float64Array.from({ length: 2 * WALKERS }, (_, k) => points[k % points.length]), eps = gauss(2 * WALKERS);
  for (const t of [-1, ...trailing(T, STEPS).reverse()]) {
    const abar = t < 0 ? 1 : abars[t];
    yield [t + 1, from.map((x, i) => Math.sqrt(abar) * x + Math.sqrt(1 - abar) * eps[i])];
  }
}

function frame() {
  const ready = points.length > 2 && ($('who').value === 'exact' || layers || $('way').value === 'forth');
  if (!ready) [story, walkers] = [null, null];
  else if (resting) resting--;
  else {
    if (!story) story = ($('way').value === 'back' ? back : forth)(SCHEDULES[$('schedule').value](T));
    const next = story.next();
    if (next.done) {
      [story, resting] = [null, REST];
      if ($('way').value === 'back') {
        const share = shareOfCopies(walkers, [...known(), ...others()], known().length / 2);
        copies = `${Math.round(100 * share)} % ended nearest to a point that was trained on`;
        section.dataset.share = share;
      }
    } else [level, walkers] = next.value;
  }
  draw();
  const so = [`${points.length / 2} points, half of them (filled) for training`, ready && walkers && `t = ${level}`, learned, copies];
  $('facts').textContent = points.length > 2 ? so.filter(Boolean).join(' · ') : 'Draw with the mouse or a finger; or with the arrow keys and space.';
}

function draw() {
  const at = (x, y) => [(x + WIDE) * scale, (WIDE - y) * scale];
  g.clearRect(0, 0, canvas.width, canvas.height);
  g.lineWidth = 1.5;
  g.strokeStyle = g.fillStyle = colour('--pst-color-primary');
  for (let i = 0; i < points.length; i += 2) {
    g.beginPath();
    g.arc(...at(points[i], points[i + 1]), 5, 0, 7);
    if (i % 4 < 2) g.fill(); else g.stroke();
  }
  g.fillStyle = colour('--pst-color-text-base');
  for (let k = 0; walkers && k < walkers.length; k += 2) g.fillRect(...at(walkers[k], walkers[k + 1]).map(v => v - 1.5), 3.5, 3.5);
  if (cursor) g.strokeRect(...at(...cursor).map(v => v - 7), 14, 14);
}

heart();
if (still) setInterval(frame, 400); else (function run() { frame(); requestAnimationFrame(run); })();
