// Reads the weights that ddpm_course/run/checkpoints.py writes: the safetensors format, a table in JSON and then the numbers.

const READ = {
  F32: bytes => new Float32Array(bytes),
  F16: bytes => Float32Array.from(new Float16Array(bytes)),
  BF16: bytes => new Float32Array(Uint32Array.from(new Uint16Array(bytes), half => half << 16).buffer),  // the upper half of a float32
};

/** { name: { shape, values } } of a file in the format of safetensors. */
export function readSafetensors(buffer) {
  try {
    const begin = 8 + Number(new DataView(buffer).getBigUint64(0, true));
    const { __metadata__, ...table } = JSON.parse(new TextDecoder().decode(buffer.slice(8, begin)));
    return Object.fromEntries(Object.entries(table).map(([name, { dtype, shape, data_offsets: [from, to] }]) =>
      [name, { shape, values: READ[dtype](buffer.slice(begin + from, begin + to)) }]));
  } catch {
    throw new Error('This is no file of weights: expected ema.safetensors from a run.');
  }
}
