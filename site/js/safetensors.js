// Reads the weights that ddpm_course/run/checkpoints.py writes: the safetensors format, a table in JSON and then the numbers.

const READ = {
  F32: view => index => view.getFloat32(4 * index, true),
  BF16: view => index => fromBits(view.getUint16(2 * index, true) << 16),      // the upper half of a float32
  F16: view => index => half(view.getUint16(2 * index, true)),
};
const bits = new Uint32Array(1), asFloat = new Float32Array(bits.buffer);
const fromBits = word => (bits[0] = word, asFloat[0]);
function half(word) {
  const sign = word & 0x8000 ? -1 : 1, exponent = word >> 10 & 31, rest = word & 1023;
  if (exponent === 31) return rest ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + rest) : 2 ** -24 * rest);
}

/** { name: { shape, values } } of a file in the format of safetensors. */
export function readSafetensors(buffer) {
  try {
    const size = Number(new DataView(buffer).getBigUint64(0, true));
    const { __metadata__, ...table } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
    return Object.fromEntries(Object.entries(table).map(([name, { dtype, shape, data_offsets: [from, to] }]) => {
      const read = READ[dtype](new DataView(buffer, 8 + size + from, to - from));
      return [name, { shape, values: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => read(i)) }];
    }));
  } catch {
    throw new Error('This is no file of weights: expected ema.safetensors from a run.');
  }
}
