// The U-Net of chapter 08, from the names of its weights, for a batch of images at a time.
// Its convolutions are products of matrices on one small kernel (matmul.wat); all else is plain JavaScript.

const silu = z => z / (1 + Math.exp(-z));
const upTo = (n, k) => Math.ceil(n / k) * k;

/** answer(x, t, ys): x (B, C, size, size) flat, one index t, B classes (or null: none) -> the network's answer. */
export function buildUNet(weights, kernel, { size, groups }) {
  const { memory, multiply } = kernel;
  const shape = name => weights[name + '.weight'].shape, has = name => name + '.weight' in weights;
  const values = (name, what = 'weight') => weights[`${name}.${what}`].values;

  // -- the kernel's memory: packed weights, then what each product needs
  let top = 16;
  const place = bytes => { const at = top; top = upTo(top + bytes, 16); reserve(top); return at; };
  function reserve(bytes) {
    const more = Math.ceil((bytes - memory.buffer.byteLength) / 65536);
    if (more > 0) memory.grow(more);
  }
  const packed = {};
  for (const name of Object.keys(weights).map(n => n.replace(/\.(weight|bias)$/, ''))) {
    if (packed[name] || !/conv|shortcut|query|key|value|attention\.out|out\.2/.test(name)) continue;
    const outputs = shape(name)[0], rows = values(name).length / outputs, w = place(4 * upTo(outputs, 4) * rows), b = place(4 * upTo(outputs, 4));
    const into = new Float32Array(memory.buffer), from = values(name);
    for (let o = 0; o < outputs; o++) {
      for (let j = 0; j < rows; j++) into[w / 4 + ((o >> 2) * rows + j) * 4 + (o & 3)] = from[o * rows + j];
      into[b / 4 + o] = values(name, 'bias')[o];
    }
    packed[name] = { w, b, outputs };
  }

  /** A convolution of 3x3 (reach 1) or 1x1 (0): x is (C, B, n, n); so is the answer, with C outputs. */
  function convolve(name, x, n, B) {
    const { w, b, outputs } = packed[name], C = shape(name)[1], reach = shape(name)[2] === 3 ? 1 : 0;
    // Each image gets a column and a row of zeros; they are what its neighbours, and its own last row, see as edge.
    const side = n + reach, plane = side * side, edge = upTo(reach * (side + 1), 4), width = upTo(B * plane, 8);
    const across = width + edge, shifts = reach ? [-1, 0, 1] : [0];
    const table = top, rows = C * shifts.length ** 2, X = upTo(table + 4 * rows, 16), Y = X + 4 * (C * across + edge + 8);
    reserve(Y + 4 * upTo(outputs, 4) * width);
    const F = new Float32Array(memory.buffer), places = new Int32Array(memory.buffer, table, rows);
    F.fill(0, X / 4, Y / 4);
    let j = 0;
    for (let c = 0; c < C; c++) {
      const start = X / 4 + edge + c * across;
      for (const down of shifts) for (const right of shifts) places[j++] = 4 * (start + down * side + right);
      for (let r = 0; r < B * n; r++)
        F.set(x.subarray((c * B * n + r) * n, (c * B * n + r + 1) * n), start + Math.floor(r / n) * plane + (r % n) * side);
    }
    multiply(upTo(outputs, 4), table, table + 4 * rows, 4 * width, w, b, Y);
    const out = new Float32Array(outputs * B * n * n);
    for (let o = 0, to = 0; o < outputs; o++)
      for (let r = 0; r < B * n; r++, to += n) {
        const from = Y / 4 + o * width + Math.floor(r / n) * plane + (r % n) * side;
        out.set(F.subarray(from, from + n), to);
      }
    return out;
  }

  // -- the parts, named as in the package
  function linear(name, x) {                                            // on one vector
    const [outputs, inputs] = shape(name), w = values(name), b = values(name, 'bias');
    return Float32Array.from({ length: outputs }, (_, o) => {
      let sum = b[o];
      for (let i = 0; i < inputs; i++) sum += w[o * inputs + i] * x[i];
      return sum;
    });
  }
  function norm(name, x, n, B, after = z => z) {                        // GroupNorm
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
  const add = (x, y) => { for (let i = 0; i < x.length; i++) x[i] += y[i]; return x; };
  function residual(name, x, n, B, embed) {
    const h = convolve(name + '.conv1', norm(name + '.norm1', x, n, B, silu), n, B), N = n * n;
    embed(name + '.embed').forEach((e, k) => e.forEach((v, c) => {
      for (let i = (c * B + k) * N, end = i + N; i < end; i++) h[i] += v;
    }));
    const out = convolve(name + '.conv2', norm(name + '.norm2', h, n, B, silu), n, B);
    return add(out, has(name + '.shortcut') ? convolve(name + '.shortcut', x, n, B) : x);
  }
  function attention(name, x, n, B) {
    const N = n * n, C = x.length / (B * N), places = norm(name + '.norm', x, n, B), mixed = new Float32Array(x.length);
    const [q, k, v] = ['query', 'key', 'value'].map(part => convolve(`${name}.${part}`, places, n, B)), e = new Float64Array(N);
    for (let b = 0; b < B; b++) for (let i = 0; i < N; i++) {
      const at = c => (c * B + b) * N;
      let top = -Infinity, sum = 0;
      for (let j = 0; j < N; j++) {
        let dot = 0;
        for (let c = 0; c < C; c++) dot += q[at(c) + i] * k[at(c) + j];
        top = Math.max(top, e[j] = dot / Math.sqrt(C));
      }
      for (let j = 0; j < N; j++) sum += e[j] = Math.exp(e[j] - top);
      for (let c = 0; c < C; c++) {
        let dot = 0;
        for (let j = 0; j < N; j++) dot += e[j] * v[at(c) + j];
        mixed[at(c) + i] = dot / sum;
      }
    }
    return add(convolve(name + '.out', mixed, n, B), x);
  }
  function stage(name, x, n, B, embed) {
    const h = residual(name + '.residual', x, n, B, embed);
    return has(name + '.attention.norm') ? attention(name + '.attention', h, n, B) : h;
  }
  function halve(name, x, n, B) {                                       // a stride of two: every second answer
    const full = convolve(name + '.conv', x, n, B), half = n / 2;
    return new Float32Array(full.length / 4).map((_, i) => {
      const plane = Math.floor(i / (half * half)), row = Math.floor(i / half) % half;
      return full[(plane * n + 2 * row + 1) * n + 2 * (i % half) + 1];
    });
  }
  function double(name, x, n, B) {                                      // each pixel four times
    const twice = new Float32Array(x.length * 4).map((_, i) => {
      const plane = Math.floor(i / (4 * n * n)), row = Math.floor(i / (2 * n)) % (2 * n);
      return x[(plane * n + (row >> 1)) * n + (i % (2 * n) >> 1)];
    });
    return convolve(name + '.conv', twice, 2 * n, B);
  }
  const partsOf = way => {                                              // their names, in order
    const found = Object.keys(weights).map(name => name.match(`^${way}\\.(\\d+)\\.`)).filter(Boolean);
    return Array.from({ length: 1 + Math.max(...found.map(m => +m[1])) }, (_, k) => `${way}.${k}`);
  };
  const [downs, middles, ups] = ['down', 'middle', 'up'].map(partsOf);
  function embedding(t, y) {
    const channels = shape('time.layers.0')[1], half = channels / 2, waves = new Float32Array(channels);
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(t * Math.fround(Math.exp(-Math.log(10000) * i / (half - 1))));
      [waves[i], waves[half + i]] = [Math.sin(angle), Math.cos(angle)];
    }
    const emb = linear('time.layers.2', linear('time.layers.0', waves).map(silu));
    return emb.map((v, i) => silu(v + (has('classes.table') ? values('classes.table')[y * emb.length + i] : 0)));
  }

  return (images, t, ys) => {
    const B = ys.length, C = shape('conv_in')[1], N = size * size, known = new Map();
    const first = turned(images, B, C, N);
    const of = (y, make) => known.get(y) ?? known.set(y, make()).get(y);       // the same classes: the same vectors
    const embed = name => ys.map(y => of(name + y, () => linear(name, of(y, () => embedding(t, y)))));
    let n = size, h = convolve('conv_in', first, n, B);
    const skips = [h];
    for (const part of downs) {
      if (has(part + '.conv')) { h = halve(part, h, n, B); n /= 2; } else h = stage(part, h, n, B, embed);
      skips.push(h);
    }
    for (const part of middles) h = stage(part, h, n, B, embed);
    for (const part of ups) {
      if (has(part + '.conv')) { h = double(part, h, n, B); n *= 2; continue; }
      const skip = skips.pop(), both = new Float32Array(h.length + skip.length);
      both.set(h);
      both.set(skip, h.length);
      h = stage(part, both, n, B, embed);
    }
    const out = convolve('out.2', norm('out.0', h, n, B, silu), n, B);
    return turned(out, out.length / (B * N), B, N);
  };
}

/** (A, B, N) to (B, A, N). */
function turned(x, A, B, N) {
  const out = new Float32Array(x.length);
  for (let a = 0; a < A; a++) for (let b = 0; b < B; b++) out.set(x.subarray((a * B + b) * N, (a * B + b + 1) * N), (b * A + a) * N);
  return out;
}
