// Points drawn by hand, and walkers that find them: with the exact denoiser, and beside it with a network that learns meanwhile.
import { chart, colour, load } from './chart.js';
import { denoise, leastLoss, nearest } from './exact.js';
import { predict, trainer } from './mlp.js';
import { PURPOSE, normal } from './noise.js';
import { strokes } from './pad.js';
import { SCHEDULES, trailing, walk } from './sampler.js';

const section = document.getElementById('plane'), T = 1000, WALKERS = 300, STEPS = 60, REST = 45, WIDE = 2.2, MOST = 400;
const CALLED = { exact: 'The exact denoiser', network: 'A network, learning now' };
section.innerHTML = `
  <p id="facts"></p><div class="planes">${Object.entries(CALLED).map(([who, name]) => `<figure><canvas class="plane" width="560" height="560" tabindex="0"
    role="application" aria-label="${name}. Draw points with the mouse or a finger, or move with the arrow keys and press space."></canvas>
    <figcaption><b>${name}</b><br><span id="${who}"></span></figcaption></figure>`).join('')}</div>
  <form class="controls">
    ${['heart', 'ring', 'three'].map(name => `<button type="button" id="${name}">A ${name}</button>`).join(' ')}
    <button type="button" id="clear">Clear</button> <button type="button" id="again">Train again</button>
    <label>points to train on <input id="most" type="range" min="2" max="${MOST / 2}" value="${MOST / 2}"> <output id="used"></output></label>
    <label>training steps <input id="steps" type="range" min="2" max="4.5" step="0.1" value="4.3"> <output id="stop"></output></label>
    <label>schedule <select id="schedule"><option>cosine<option>linear</select></label>
    <label><input id="pause" type="checkbox"> pause</label>
  </form>
  <canvas id="curve" width="720" height="150" role="img" aria-label="The loss of the network, by training step."></canvas>`;
const $ = id => document.getElementById(id), [left, right] = section.querySelectorAll('canvas.plane');
const still = matchMedia('(prefers-reduced-motion: reduce)').matches, scale = left.width / (2 * WIDE);
let points = [], cursor = null, learner = null, story = null, resting = 0, walkers = {}, level = 0, losses = [], copies = {}, seed = 0, step = 0, told = 0, least = 0;

// -- points: pairs of neighbours in the order of drawing. One is for training, the other tells learning from copying.
const pairs = () => Math.min(+$('most').value, points.length >> 2);
const some = which => Array.from({ length: pairs() }, (_, k) => 4 * Math.floor(k * (points.length >> 2) / pairs()) + which).flatMap(i => [points[i], points[i + 1]]);
const known = () => some(0), others = () => some(2), abars = () => SCHEDULES[$('schedule').value](T), steps = () => Math.round(10 ** $('steps').value / 10) * 10;
function changed() {
  [story, copies, losses, step] = [null, {}, [], 0];
  $('used').value = pairs();
  $('stop').value = steps().toLocaleString('en');
  least = leastLoss(known(), abars());
  learner = points.length >= 8 ? trainer(known(), abars(), seed) : null;
}
function learn() {                                                               // in short turns, so that the page stays quick
  for (const until = performance.now() + 20; learner && step < steps() && performance.now() < until;) {
    losses[step / 10 | 0] = (losses[step / 10 | 0] ?? 0) + learner.step() / 10;
    step++;
  }
  setTimeout(learn);
}
function curve() {
  const every = Math.ceil(step / 3000), shown = losses.slice(0, step / 10).filter((_, k) => k % every === 0), x = [0, Math.max(10, step)];
  const curve = chart($('curve'), { x, y: [0, Math.max(1, ...shown)], label: 'training step; loss, the mean of ten steps; dashed: of the exact denoiser' });
  curve.curve(x, [least, least], 'text-muted', [4, 4]);
  curve.curve(shown.map((_, k) => 10 * every * k), shown);
}
const clamp = v => Math.max(-WIDE, Math.min(WIDE, v)), place = (u, v) => [(2 * u - 1) * WIDE, (1 - 2 * v) * WIDE];
function add(u, v) { if (points.length < 2 * MOST) points.push(...place(u, v).map(clamp)); }
for (const canvas of [left, right]) strokes(canvas, 0.02, { touch: add, end: changed, moved(at) { cursor = at && place(...at); } });
const shape = (n, at) => () => { points = Array.from({ length: n }, (_, i) => 2 * Math.PI * (i * 61 % n) / n).flatMap(at); changed(); };
$('heart').onclick = shape(160, a =>
  [1.5 * Math.sin(a) ** 3, 1.5 * (13 * Math.cos(a) - 5 * Math.cos(2 * a) - 2 * Math.cos(3 * a) - Math.cos(4 * a)) / 16]);
$('ring').onclick = shape(300, a => [1.5 * Math.cos(a), 1.5 * Math.sin(a)]);
$('three').onclick = async () => { points = (await load('digits.json')).more.map(v => 2 * v); changed(); };
$('clear').onclick = () => { points = []; changed(); };
$('again').onclick = () => { seed++; changed(); };
for (const id of ['schedule', 'most', 'steps']) $(id).oninput = changed;

// -- the walk back (Algorithm 2 without noise on the way) of both, from the same noise: a step is a frame
const halves = x => ({ exact: x.slice(0, 2 * WALKERS), network: x.slice(2 * WALKERS) });
function walks() {
  const noise = normal(2 * WALKERS, seed, PURPOSE.LESSON, told++, 0), schedule = abars();
  const indices = [...trailing(T, STEPS), 11, 7, 4, 2, 1, 0];                    // small steps at the end: points lie close
  const answers = ({ exact, network }, t) => [...denoise(exact, known(), schedule[t]), ...predict(learner.mean, network, t, schedule)];
  return walk((x, t) => answers(halves(x), t), [...noise, ...noise], { sampler: 'ddim', abars: schedule, indices });
}

function frame() {
  if (!learner) [story, walkers] = [null, {}];
  else if ($('pause').checked) return;
  else if (resting) resting--;
  else {
    story ??= walks();
    const { done, value } = story.next();
    if (!done) [level, walkers] = [value.t, halves(value.x)];
    else {
      [story, resting, section.ended] = [null, REST, walkers];
      for (const [who, x] of Object.entries(walkers)) [section.dataset[who], section.dataset[`${who}Far`]] = copies[who] = nearest(x, [...known(), ...others()], pairs());
    }
  }
  for (const [who, canvas] of [['exact', left], ['network', right]]) {
    draw(canvas, who);
    const said = [who === 'network' && step > 9 && `step ${step.toLocaleString('en')}, loss ${losses[(step / 10 | 0) - 1].toFixed(2)}`,
      copies[who] && `${Math.round(100 * copies[who][0])} % copies, ${copies[who][1].toFixed(2)} away`];
    $(who).textContent = said.filter(Boolean).join(' · ') || '\u00a0';
  }
  curve();
  $('facts').textContent = points.length < 8 ? 'Draw in a square: with the mouse or a finger; or with the arrow keys and space.'
    : `Draw more in a square. ${points.length / 2} points, ${pairs()} of them (filled) to train on · t = ${level}`;
}

function draw(canvas, who) {
  const g = canvas.getContext('2d'), fine = Math.max(1, canvas.width / 2 / canvas.clientWidth), at = (x, y) => [(x + WIDE) * scale, (WIDE - y) * scale], x = walkers[who];
  g.clearRect(0, 0, canvas.width, canvas.height);
  g.lineWidth = 1;
  g.strokeStyle = g.fillStyle = colour('primary');
  for (const [ours, full] of [[known(), true], [others(), false]]) for (let i = 0; i < ours.length; i += 2) {
    g.beginPath();
    g.arc(...at(ours[i], ours[i + 1]), fine * (points.length > 200 ? 3 : 4.5), 0, 7);
    if (full) g.fill(); else g.stroke();
  }
  if (points.length < 8) for (let i = 0; i < points.length; i += 2) g.fillRect(...at(points[i], points[i + 1]), 4, 4);
  g.fillStyle = colour('text-base');
  for (let k = 0; x && k < x.length; k += 2) g.fillRect(...at(x[k], x[k + 1]).map(v => v - 1.5 * fine), 3 * fine, 3 * fine);
  if (cursor) g.strokeRect(...at(...cursor).map(v => v - 7), 14, 14);
}

$('heart').onclick();
learn();
if (still) setInterval(frame, 400); else (function run() { frame(); requestAnimationFrame(run); })();
