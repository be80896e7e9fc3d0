// A canvas to draw on, in the pixels of the model: a picture in [-1, 1], and a mask of what is to be drawn anew.
import { picture as paint } from './chart.js';

const LEVELS = 7.5;             // 16 levels a pixel: so a drawing fits into a link
const round = v => Math.round((v + 1) * LEVELS) / LEVELS - 1;
export const pack = a => btoa(Array.from({ length: a.length / 2 }, (_, i) =>
  String.fromCharCode(16 * Math.round((a[2 * i] + 1) * LEVELS) + Math.round((a[2 * i + 1] + 1) * LEVELS))).join(''));
export const unpack = text => [...atob(text)].flatMap(c => [c.charCodeAt(0) >> 4, c.charCodeAt(0) & 15]).map(v => v / LEVELS - 1);

/** pad(element, size, channels, changed) -> { picture, mask }, null where nothing has been drawn, or masked; either can be set. */
export function pad(element, size, channels, changed) {
  const N = size * size, ink = new Float32Array(channels * N).fill(-1), anew = new Uint8Array(N);
  element.innerHTML = `
    <canvas class="pad" tabindex="0" role="application"
      aria-label="A picture to draw: with the mouse or a finger, or with the arrow keys and space"></canvas>
    <label>draw with <select><option value="pen">a pen<option value="rubber">a rubber<option value="mask">a mask: what is drawn anew</select></label>
    <input type="color" value="#ffffff" aria-label="colour of the pen"${channels === 3 ? '' : ' hidden'}>
    <button type="button">Clear</button>`;
  const [canvas, menu, colour, button] = ['canvas', 'select', 'input', 'button'].map(name => element.querySelector(name));
  let at = null;

  function show() {
    paint(canvas, ink, size);
    const g = canvas.getContext('2d');
    g.fillStyle = 'rgba(230, 120, 40, .6)';
    anew.forEach((on, i) => on && g.fillRect(i % size, Math.floor(i / size), 1, 1));
    g.fillStyle = 'rgba(90, 170, 255, .7)';
    if (at) g.fillRect(...at, 1, 1);
  }
  function touch(x, y) {
    const pen = [1, 3, 5].map(k => parseInt(colour.value.slice(k, k + 2), 16) / 127.5 - 1), strong = channels === 3;
    for (let b = 0; b < size; b++) for (let a = 0; a < size; a++) {     // a soft brush, a pixel and a half wide
      const near = 1.6 - Math.hypot(a + 0.5 - x, b + 0.5 - y), i = b * size + a;
      if (near <= 0) continue;
      if (menu.value === 'mask') anew[i] = 1;
      else for (let c = 0; c < channels; c++) {
        const v = strong ? pen[c] : Math.max(ink[i], Math.min(1, 2 * near - 1));
        ink[c * N + i] = menu.value === 'rubber' ? -1 : round(strong && near < 0.6 ? ink[c * N + i] : v);
      }
      if (menu.value === 'rubber') anew[i] = 0;
    }
    show();
  }
  let last = null;                                              // of a stroke: its points are joined
  const moved = event => {
    const box = canvas.getBoundingClientRect(), to = [(event.clientX - box.left) / box.width * size, (event.clientY - box.top) / box.height * size];
    const from = last ?? to, parts = Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1])) || 1;
    for (let k = 1; k <= parts; k++) touch(...to.map((v, d) => from[d] + k / parts * (v - from[d])));
    last = to;
  };
  canvas.onpointerdown = event => { canvas.setPointerCapture(event.pointerId); last = null; moved(event); };
  canvas.onpointermove = event => { if (event.buttons) moved(event); };
  canvas.onpointerup = changed;
  canvas.onkeydown = event => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!move && event.key !== ' ') return;
    at = (at ?? [size >> 1, size >> 1]).map((v, d) => Math.max(0, Math.min(size - 1, v + (move?.[d] ?? 0))));
    if (move) show(); else { touch(at[0] + 0.5, at[1] + 0.5); changed(); }
    event.preventDefault();
  };
  canvas.onblur = () => { at = null; show(); };
  button.onclick = () => { menu.value = 'pen'; ink.fill(-1); anew.fill(0); show(); changed(); };
  show();
  return {
    get picture() { return ink.some(v => v > -1) ? ink : null; },
    set picture(x) { ink.set(x.map(round)); show(); },
    get mask() { return anew.some(Boolean) ? anew : null; },
    set mask(on) { anew.set(on); show(); },
    marking() { menu.value = 'mask'; },
  };
}
