// A canvas to draw on, in the pixels of the model: a picture in [-1, 1], and a mask of what is to be drawn anew.
import { picture as paint } from './chart.js';

export const pack = a => btoa(String.fromCharCode(...a.map(v => Math.round((v + 1) * 127.5))));
export const unpack = text => Float32Array.from(atob(text), c => c.charCodeAt(0) / 127.5 - 1);

/** Mouse and finger, or arrow keys and space, on a canvas: `touch(u, v)` at places in 0..1, `end()` after each stroke, and
 *  `moved(place)` where the keys lead, null where they leave. */
export function strokes(canvas, step, { touch, end, moved }) {
  let at = null;
  const pointed = event => {
    const box = canvas.getBoundingClientRect(), all = event.getCoalescedEvents();
    for (const e of all.length ? all : [event]) touch((e.clientX - box.left) / box.width, (e.clientY - box.top) / box.height);
  };
  canvas.onpointerdown = event => { canvas.setPointerCapture(event.pointerId); pointed(event); };
  canvas.onpointermove = event => { if (event.buttons) pointed(event); };
  canvas.onpointerup = end;
  canvas.onkeydown = event => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], ' ': [0, 0] }[event.key];
    if (!move) return;
    event.preventDefault();
    at = (at ?? [0.5, 0.5]).map((v, d) => Math.max(0, Math.min(1, v + step * move[d])));
    if (event.key === ' ') { touch(...at); end(); }
    moved(at);
  };
  canvas.onblur = () => moved(at = null);
}

/** pad(element, size, channels, changed) -> { picture, mask }, null where nothing has been drawn, or masked; either can be set. */
export function pad(element, size, channels, changed) {
  const N = size * size, ink = new Float32Array(channels * N).fill(-1), anew = new Uint8Array(N);
  element.innerHTML = `
    <canvas class="pad" tabindex="0" role="application"
      aria-label="A picture to draw: with the mouse or a finger, or with the arrow keys and space"></canvas>
    <label>draw with <select><option value="pen">a pen<option value="rubber">a rubber<option value="mask">a mask: what is drawn anew</select></label>
    <input type="color" value="#ffffff" aria-label="colour of the pen"${channels === 3 ? '' : ' hidden'}>
    <button type="button">Clear</button>`;
  const [canvas, menu, colour, button] = element.querySelectorAll('canvas, select, input, button');

  function show(at) {
    paint(canvas, ink, size);
    const g = canvas.getContext('2d');
    g.fillStyle = 'rgba(230, 120, 40, .6)';
    anew.forEach((on, i) => on && g.fillRect(i % size, Math.floor(i / size), 1, 1));
    g.fillStyle = 'rgba(90, 170, 255, .7)';
    if (at) g.fillRect(...at.map(v => Math.min(size - 1, Math.floor(v * size))), 1, 1);
  }
  function touch(u, v) {
    const pen = [1, 3, 5].map(k => parseInt(colour.value.slice(k, k + 2), 16) / 127.5 - 1);
    for (let i = 0; i < N; i++) {                               // a soft brush, a pixel and a half wide
      const near = 1.6 - Math.hypot(i % size + 0.5 - u * size, Math.floor(i / size) + 0.5 - v * size);
      if (near <= 0) continue;
      if (menu.value !== 'pen') anew[i] = menu.value === 'mask';
      for (let c = 0; c < channels && menu.value !== 'mask'; c++) {
        const at = c * N + i, drawn = channels === 1 ? Math.max(ink[i], Math.min(1, 2 * near - 1)) : near < 0.6 ? ink[at] : pen[c];
        ink[at] = menu.value === 'pen' ? drawn : -1;
      }
    }
    show();
  }
  strokes(canvas, 1 / size, { touch, end: changed, moved: show });
  button.onclick = () => { menu.value = 'pen'; ink.fill(-1); anew.fill(0); show(); changed(); };
  show();
  return {
    get picture() { return ink.some(v => v > -1) ? ink : null; },
    set picture(x) { ink.set(x); show(); },
    get mask() { return anew.some(Boolean) ? anew : null; },
    set mask(on) { anew.set(on); show(); },
  };
}
