// The U-Net of page 08, as in ddpm_course/unet.py, attention.py and embeddings.py, read off the names of its weights.
// Functions have the names of the package's classes: change the one that changed there, until test_parts[unet.js] in
// tests/browser/test_site.py passes. docs/design.md says why this is not onnxruntime-web.
// Features are flat arrays (C, n, n) of one image: a channel is a row of a matrix. A convolution multiplies that matrix on the
// kernel of matmul.wat; all else is plain JavaScript.
import { softmax } from './exact.js';

const silu = z => z / (1 + Math.exp(-z));
const upTo = (n, k) => Math.ceil(n / k) * k;
const joined = (x, y) => new Float32Array(x.length + y.length).map((_, i) => i < x.length ? x[i] : y[i - x.length]);
const add = (x, y) => { for (let i = 0; i < x.length; i++) x[i] += y[i]; return x; };

/** network(images, t, ys): (B, C, size, size), one index t, B classes (any without classes) -> its answer, as images. */
export function buildUNet(weights, { memory, multiply }, { size, groups }) {
  const shape = name => weights[`${name}.weight`].shape, has = name => `${name}.weight` in weights;
  const values = (name, what = 'weight') => weights[`${name}.${what}`].values;

  // -- convolutions, in the kernel's memory: packed weights of all, then x and y of the one at work

  const packed = {};
  let top = 0;                                                          // end of the weights; all offsets count floats
  function floats(end) {
    const more = Math.ceil((4 * end - memory.buffer.byteLength) / 65536);
    if (more > 0) memory.grow(more);
    return new Float32Array(memory.buffer);
  }
  function pack(name, n) {
    const [outputs, C, width] = shape(name), shifts = width === 3 ? [-1, 0, 1] : [0], rows = C * shifts.length ** 2;
    const side = n + (shifts.length >> 1), edge = upTo(side + 1, 4), channel = edge + upTo(n * side, 4);
    const w = top, b = w + upTo(outputs, 4) * rows, table = b + upTo(outputs, 4);
    top = upTo(table + rows, 4);
    const F = floats(top);
    values(name).forEach((v, i) => { const o = Math.floor(i / rows); F[w + ((o >> 2) * rows + i % rows) * 4 + (o & 3)] = v; });
    F.set(values(name, 'bias'), b);
    new Int32Array(memory.buffer, 4 * table, rows).set(Array.from({ length: C }, (_, c) =>
      shifts.map(down => shifts.map(right => 4 * (c * channel + edge + down * side + right)))).flat(2));
    return { outputs, C, side, edge, channel, w, b, table, rows };
  }
  /** A convolution of 3x3 or 1x1 with zeros around: one row of the matrix for each channel and shift. A table says where each
   *  begins, so x is stored once. Beside each line and between channels lie zeros, which the neighbours see as their edge, too. */
  function convolve(name, x, n) {
    const { outputs, C, side, edge, channel, w, b, table, rows } = packed[name] ??= pack(name, n), width = channel - edge;
    const Y = top + C * channel + edge, F = floats(Y + upTo(outputs, 4) * width), out = new Float32Array(outputs * n * n);
    const line = (k, channel) => Math.floor(k / n) * channel + k % n * side;         // where line k of all channels begins
    F.fill(0, top, Y);
    for (let k = 0; k < C * n; k++) F.set(x.subarray(k * n, (k + 1) * n), top + edge + line(k, channel));
    multiply(...[w, b, table, table + rows, top, width, Y - top].map(floats => 4 * floats));
    for (let k = 0; k < outputs * n; k++) out.set(F.subarray(Y + line(k, width), Y + line(k, width) + n), k * n);
    return out;
  }

  // -- the parts, as in the package

  function linear(name, x) {                                            // of one vector
    const [outputs, inputs] = shape(name), w = values(name);
    return values(name, 'bias').map((sum, o) => {
      for (let i = 0; i < inputs; i++) sum += w[o * inputs + i] * x[i];
      return sum;
    });
  }
  function groupNorm(name, x, after = z => z) {
    const w = values(name), b = values(name, 'bias'), N = x.length / w.length, part = x.length / groups, out = new Float32Array(x.length);
    for (let from = 0; from < x.length; from += part) {
      let sum = 0, squares = 0;
      for (let i = from; i < from + part; i++) { sum += x[i]; squares += x[i] * x[i]; }
      const mean = sum / part, scale = 1 / Math.sqrt(squares / part - mean * mean + 1e-6);
      for (let i = from; i < from + part; i++) out[i] = after((x[i] - mean) * scale * w[Math.floor(i / N)] + b[Math.floor(i / N)]);
    }
    return out;
  }
  function residualBlock(name, x, n, emb) {
    const h = convolve(`${name}.conv1`, groupNorm(`${name}.norm1`, x, silu), n), shift = linear(`${name}.embed`, emb.map(silu));
    const told = h.map((v, i) => v + shift[Math.floor(i / (n * n))]);
    const out = convolve(`${name}.conv2`, groupNorm(`${name}.norm2`, told, silu), n);
    return add(out, has(`${name}.shortcut`) ? convolve(`${name}.shortcut`, x, n) : x);
  }
  function attentionBlock(name, x, n) {
    const N = n * n, C = x.length / N, h = groupNorm(`${name}.norm`, x), mixed = new Float64Array(x.length);
    const [q, k, v] = ['query', 'key', 'value'].map(part => convolve(`${name}.${part}`, h, n));
    for (let i = 0; i < N; i++) {
      const scores = new Float64Array(N);
      for (let c = 0; c < C; c++) for (let j = 0; j < N; j++) scores[j] += q[c * N + i] * k[c * N + j] / Math.sqrt(C);
      const weights = softmax(scores);
      for (let c = 0; c < C; c++) for (let j = 0; j < N; j++) mixed[c * N + i] += weights[j] * v[c * N + j];
    }
    return add(convolve(`${name}.out`, mixed, n), x);
  }
  function stage(name, x, n, emb) {
    const h = residualBlock(`${name}.residual`, x, n, emb);
    return has(`${name}.attention.norm`) ? attentionBlock(`${name}.attention`, h, n) : h;
  }
  function downsample(name, x, n) {                                     // a stride of two: every second answer
    return convolve(`${name}.conv`, x, n).filter((_, i) => i % 2 && Math.floor(i / n) % 2);
  }
  function upsample(name, x, n) {                                       // each pixel four times
    const twice = new Float32Array(4 * x.length).map((_, i) => x[(Math.floor(i / (2 * n)) >> 1) * n + (i % (2 * n) >> 1)]);
    return convolve(`${name}.conv`, twice, 2 * n);
  }
  function embedding(t, y) {                                            // of time and class
    const channels = shape('time.layers.0')[1], half = channels / 2, waves = new Float32Array(channels);
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(t * Math.fround(Math.exp(-Math.log(10000) * i / (half - 1))));
      [waves[i], waves[half + i]] = [Math.sin(angle), Math.cos(angle)];
    }
    const emb = linear('time.layers.2', linear('time.layers.0', waves).map(silu));
    return has('classes.table') ? add(emb, values('classes.table').subarray(y * emb.length)) : emb;
  }

  // -- the whole: each result of the way down is kept for a stage of the way up

  const parts = [...new Set(Object.keys(weights).flatMap(name => name.match(/^(down|middle|up)\.\d+/)?.[0] ?? []))]
    .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));

  function unet(image, t, y) {
    const emb = embedding(t, y);
    let n = size, h = convolve('conv_in', image, n);
    const skips = [h];
    for (const part of parts) {
      const way = part.split('.')[0];
      if (has(`${part}.conv`)) [h, n] = way === 'down' ? [downsample(part, h, n), n / 2] : [upsample(part, h, n), 2 * n];
      else h = stage(part, way === 'up' ? joined(h, skips.pop()) : h, n, emb);
      if (way === 'down') skips.push(h);
    }
    return convolve('out.2', groupNorm('out.0', h, silu), n);
  }
  return (images, t, ys) => {
    const out = new Float32Array(images.length), length = images.length / ys.length;
    ys.forEach((y, k) =>                                                // a learned variance, behind the answer, is left out
      out.set(unet(images.subarray(k * length, (k + 1) * length), t, y).subarray(0, length), k * length));
    return out;
  };
}
