// A small chart on a canvas, in the page's colours, and sliders with names and values.
export const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--pst-color-${name}`);

/** A file beside the scripts, as 'json', 'text' or 'arrayBuffer'. */
export async function load(name, as = 'json') {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`${name} could not be loaded.`);
  return answer[as]();
}

const lower = text => text.replace(/_(\d+|t)/g, (_, all) => [...all].map(c => '₀₁₂₃₄₅₆₇₈₉ₜ'['0123456789t'.indexOf(c)]).join(''));

/** chart(canvas, { x: [from, to], y: [from, to], label }) -> curve, bars, dots, on a fresh ground. */
export function chart(canvas, { x, y, label }) {
  const g = canvas.getContext('2d');
  canvas.width = canvas.width;                                  // empty, and without the last one's clip
  g.fillStyle = g.strokeStyle = colour('text-muted');
  g.font = '13px system-ui, sans-serif';
  const lines = g.measureText(label).width < canvas.width - 60 ? [label] : label.split(/(?<=[,;:]) /);
  const left = 44, low = canvas.height - 22 - 15 * lines.length, right = canvas.width - 18, high = 10;
  const across = v => left + (v - x[0]) / (x[1] - x[0]) * (right - left), up = v => low - (v - y[0]) / (y[1] - y[0]) * (low - high);
  g.strokeRect(left, high, right - left, low - high);
  g.textAlign = 'center';
  for (const v of [0, 1, 2, 3, 4].map(k => x[0] + k * (x[1] - x[0]) / 4)) g.fillText(+v.toPrecision(3), across(v), low + 15);
  lines.forEach((line, k) => g.fillText(lower(line), (left + right) / 2, low + 31 + 15 * k));
  g.textAlign = 'right';
  for (const v of y) g.fillText(+v.toPrecision(3), left - 5, up(v) + 4);
  g.save();
  g.beginPath();
  g.rect(left, high, right - left, low - high);
  g.clip();
  const paint = (ink, width = 2) => { g.strokeStyle = g.fillStyle = colour(ink); g.lineWidth = width; };
  return {
    curve(xs, ys, ink = 'primary', dash = []) {
      paint(ink);
      g.setLineDash(dash);
      g.beginPath();
      xs.forEach((v, i) => g.lineTo(across(v), up(ys[i])));
      g.stroke();
      g.setLineDash([]);
    },
    bars(xs, ys, ink = 'primary') { paint(ink); xs.forEach((v, i) => g.fillRect(across(v) - 10, up(ys[i]), 20, up(y[0]) - up(ys[i]))); },
    dot(v, w, ink = 'text-base', size = 5) { paint(ink); g.beginPath(); g.arc(across(v), up(w), size, 0, 7); g.fill(); },
    mark(v, w, sign, ink) { paint(ink); g.font = '9px sans-serif'; g.textAlign = 'center'; g.fillText(sign, across(v), up(w) + 3); },
    arrow(a, b) { paint('text-muted', 1); g.beginPath(); g.moveTo(across(a[0]), up(a[1])); g.lineTo(across(b[0]), up(b[1])); g.stroke(); },
  };
}

/** A picture of numbers in [-1, 1]: grey, or three planes of red, green and blue. */
export function picture(canvas, x, width, height = width) {
  const N = width * height, plane = x.length > N ? N : 0, g = canvas.getContext('2d'), image = g.createImageData(width, height);
  Object.assign(canvas, { width, height }).style.imageRendering = 'pixelated';
  for (let i = 0; i < N; i++) for (let c = 0; c < 4; c++) image.data[4 * i + c] = c === 3 ? 255 : (x[c * plane + i] + 1) * 127.5;
  g.putImageData(image, 0, 0);
}

/** Sliders { name: [from, to, step, value, say] }, or menus { name: [words] }, below `section`; `draw(values)` now, at each
 *  change, and when the page turns dark or light. */
export function sliders(section, wanted, draw) {
  const controls = section.appendChild(Object.assign(document.createElement('div'), { className: 'controls' })), values = {};
  const update = () => draw(values);
  for (const [name, [min, max, step, value, say = v => v]] of Object.entries(wanted)) {
    const label = controls.appendChild(document.createElement('label')), menu = typeof min === 'string';
    label.innerHTML = `${lower(name)} ${menu ? `<select>${wanted[name].map(word => `<option>${word}`).join('')}</select>`
      : `<input type="range" min="${min}" max="${max}" step="${step}" value="${value}">`}<output></output>`;
    const [input, output] = label.children;
    const note = () => { values[name] = menu ? input.value : +input.value; output.value = menu ? '' : say(+input.value); };
    note();
    input.oninput = () => { note(); update(); };
  }
  new MutationObserver(update).observe(document.documentElement, { attributeFilter: ['data-theme'] });
  update();
}
