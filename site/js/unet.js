// The U-Net of page 08, as in ddpm_course/unet.py, attention.py and embeddings.py, read off the names of its weights.
// Functions have the names of the package's classes: change the one that changed there, until test_parts[unet.js] in
// tests/browser/test_site.py passes. docs/design.md says why this is not onnxruntime-web.
// Features are flat arrays (C, B, n, n): a channel of all B images is one row of a matrix. A convolution multiplies that
// matrix on the kernel of matmul.wat; all else is plain JavaScript.

const silu = z => z / (1 + Math.exp(-z));
const upTo = (n, k) => Math.ceil(n / k) * k;
const add = (x, y) => { for (let i = 0; i < x.length; i++) x[i] += y[i]; return x; };

/** network(images, t, ys): (B, C, size, size), one index t, B classes (any without classes) -> its answer, as images. */
export function buildUNet(weights, { memory, multiply }, { size, groups }) {
  const shape = name => weights[`${name}.weight`].shape, has = name => `${name}.weight` in weights;
  const values = (name, what = 'weight') => weights[`${name}.${what}`].values;

  // -- convolutions, in the kernel's memory: first packed weights, then the table, x and y of the product at work

  const packed = {};
  let top = 0;                                                          // end of the weights; all offsets count floats
  function floats(end) {
    const more = Math.ceil((4 * end - memory.buffer.byteLength) / 65536);
    if (more > 0) memory.grow(more);
    return new Float32Array(memory.buffer);
  }
  function pack(name) {
    const outputs = shape(name)[0], rows = values(name).length / outputs, w = top, b = w + upTo(outputs, 4) * rows;
    top = b + upTo(outputs, 4);
    const F = floats(top);
    for (let o = 0, i = 0; o < outputs; o++)
      for (let row = 0; row < rows; row++) F[w + ((o >> 2) * rows + row) * 4 + (o & 3)] = values(name)[i++];
    F.set(values(name, 'bias'), b);
    return { outputs, rows, w, b };
  }
  /** A convolution of 3x3 or 1x1 with zeros around: one row of the matrix for each channel and shift. A table says where each
   *  begins, so x is stored once. Beside and below each image lie zeros, which its neighbours see as their edge, too. */
  function convolve(name, x, n, B) {
    const { outputs, w, b } = packed[name] ??= pack(name), C = shape(name)[1], shifts = shape(name)[2] === 3 ? [-1, 0, 1] : [0];
    const side = n + (shifts.length >> 1), edge = 4 * side, width = upTo(B * side * side, 8), channel = edge + width;
    const rows = C * shifts.length ** 2, X = upTo(top + rows, 4), Y = X + C * channel + edge, F = floats(Y + upTo(outputs, 4) * width);
    const line = r => Math.floor(r / n) * side * side + r % n * side;           // where line r of B images begins
    F.fill(0, X, Y);
    for (let c = 0; c < C; c++) for (let r = 0; r < B * n; r++)
      F.set(x.subarray((c * B * n + r) * n, (c * B * n + r + 1) * n), X + c * channel + edge + line(r));
    new Int32Array(memory.buffer, 4 * top, rows).set(Array.from({ length: C }, (_, c) =>
      shifts.map(down => shifts.map(right => 4 * (X + c * channel + edge + down * side + right)))).flat(2));
    multiply(4 * (b + upTo(outputs, 4)), 4 * top, 4 * (top + rows), 4 * width, 4 * w, 4 * b, 4 * Y);
    const out = new Float32Array(outputs * B * n * n);
    for (let o = 0; o < outputs; o++) for (let r = 0; r < B * n; r++)
      out.set(F.subarray(Y + o * width + line(r), Y + o * width + line(r) + n), (o * B * n + r) * n);
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
  function groupNorm(name, x, n, B, after = z => z) {
    const w = values(name), b = values(name, 'bias'), C = w.length, per = C / groups, N = n * n;
    const out = new Float32Array(x.length);
    for (let k = 0; k < B; k++) for (let g = 0; g < groups; g++) {
      let sum = 0, squares = 0;
      for (let c = g * per; c < (g + 1) * per; c++)
        for (let i = (c * B + k) * N, end = i + N; i < end; i++) { sum += x[i]; squares += x[i] * x[i]; }
      const mean = sum / (per * N), scale = 1 / Math.sqrt(squares / (per * N) - mean * mean + 1e-6);
      for (let c = g * per; c < (g + 1) * per; c++)
        for (let i = (c * B + k) * N, end = i + N; i < end; i++) out[i] = after((x[i] - mean) * scale * w[c] + b[c]);
    }
    return out;
  }
  function residualBlock(name, x, n, B, embs) {
    const h = convolve(`${name}.conv1`, groupNorm(`${name}.norm1`, x, n, B, silu), n, B), N = n * n;
    embs.forEach((emb, k) => linear(`${name}.embed`, emb.map(silu)).forEach((v, c) => {
      for (let i = (c * B + k) * N, end = i + N; i < end; i++) h[i] += v;
    }));
    const out = convolve(`${name}.conv2`, groupNorm(`${name}.norm2`, h, n, B, silu), n, B);
    return add(out, has(`${name}.shortcut`) ? convolve(`${name}.shortcut`, x, n, B) : x);
  }
  function attentionBlock(name, x, n, B) {
    const N = n * n, C = shape(`${name}.out`)[0], h = groupNorm(`${name}.norm`, x, n, B), mixed = new Float32Array(x.length);
    const [q, k, v] = ['query', 'key', 'value'].map(part => convolve(`${name}.${part}`, h, n, B)), e = new Float64Array(N);
    for (let b = 0; b < B; b++) for (let i = 0; i < N; i++) {
      const at = c => (c * B + b) * N;
      let most = -Infinity, sum = 0;
      for (let j = 0; j < N; j++) {
        let dot = 0;
        for (let c = 0; c < C; c++) dot += q[at(c) + i] * k[at(c) + j];
        most = Math.max(most, e[j] = dot / Math.sqrt(C));
      }
      for (let j = 0; j < N; j++) sum += e[j] = Math.exp(e[j] - most);
      for (let c = 0; c < C; c++) {
        let dot = 0;
        for (let j = 0; j < N; j++) dot += e[j] * v[at(c) + j];
        mixed[at(c) + i] = dot / sum;
      }
    }
    return add(convolve(`${name}.out`, mixed, n, B), x);
  }
  function stage(name, x, n, B, embs) {
    const h = residualBlock(`${name}.residual`, x, n, B, embs);
    return has(`${name}.attention.norm`) ? attentionBlock(`${name}.attention`, h, n, B) : h;
  }
  function downsample(name, x, n, B) {                                  // a stride of two: every second answer
    const full = convolve(`${name}.conv`, x, n, B), half = n / 2;
    return new Float32Array(full.length / 4).map((_, i) => full[(Math.floor(i / half) * 2 + 1) * n + i % half * 2 + 1]);
  }
  function upsample(name, x, n, B) {                                    // each pixel four times
    const twice = new Float32Array(4 * x.length).map((_, i) => x[(Math.floor(i / (2 * n)) >> 1) * n + (i % (2 * n) >> 1)]);
    return convolve(`${name}.conv`, twice, 2 * n, B);
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

  const parts = way => [...new Set(Object.keys(weights).flatMap(name => name.match(`^${way}\\.\\d+`) ?? []))]
    .sort((a, b) => a.split('.')[1] - b.split('.')[1]);
  const all = ['down', 'middle', 'up'].flatMap(parts);

  return (images, t, ys) => {
    const B = ys.length, embs = ys.map(y => embedding(t, y));
    let n = size, h = convolve('conv_in', turned(images, B, shape('conv_in')[1], n * n), n, B);
    const skips = [h];
    for (const part of all) {
      const way = part.split('.')[0];
      if (has(`${part}.conv`)) [h, n] = way === 'down' ? [downsample(part, h, n, B), n / 2] : [upsample(part, h, n, B), 2 * n];
      else h = stage(part, way === 'up' ? joined(h, skips.pop()) : h, n, B, embs);
      if (way === 'down') skips.push(h);
    }
    const out = convolve('out.2', groupNorm('out.0', h, n, B, silu), n, B);
    return turned(out, shape('out.2')[0], B, n * n);
  };
}

function joined(x, y) {
  const out = new Float32Array(x.length + y.length);
  out.set(x);
  out.set(y, x.length);
  return out;
}
/** (A, B, N) to (B, A, N). */
function turned(x, A, B, N) {
  const out = new Float32Array(x.length);
  for (let a = 0; a < A; a++) for (let b = 0; b < B; b++) out.set(x.subarray((a * B + b) * N, (a * B + b + 1) * N), (b * A + a) * N);
  return out;
}
