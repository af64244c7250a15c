// The same standard normal numbers as cmcore.sampling.seeded_noise: image i of a seed has a stream of its own for each draw.
//
// NumPy's SeedSequence makes a key of (seed, i, draw), Philox-4x64-10 (Salmon et al. 2011) bits of the key and a counter, and the
// ziggurat of 256 layers (Marsaglia & Tsang 2000), on 32 bits at a time, normal numbers of the bits.

const product = Math.imul;

// The numbers, of at most 53 bits, as 32-bit words; mixed into a pool of four, of which two 64-bit words are the key.
function keyOf(numbers) {
  const words = numbers.flatMap((n) => (n < 2 ** 32 ? [n] : [n >>> 0, Math.floor(n / 2 ** 32)]));
  let hash = 0x43b0d7e5;
  const hashed = (value) => {
    value ^= hash;
    hash = product(hash, 0x931e8875);
    value = product(value, hash);
    return value ^ (value >>> 16);
  };
  const mixed = (x, y) => {
    const value = (product(0xca01f9dd, x) - product(0x4973f715, y)) | 0;
    return value ^ (value >>> 16);
  };
  const pool = [0, 1, 2, 3].map((i) => hashed(words[i] || 0));
  for (let from = 0; from < 4; from++) {
    for (let to = 0; to < 4; to++) if (from !== to) pool[to] = mixed(pool[to], hashed(pool[from]));
  }
  for (const word of words.slice(4)) for (let to = 0; to < 4; to++) pool[to] = mixed(pool[to], hashed(word));
  hash = 0x8b51f9dd;
  const out = pool.map((value) => {
    value ^= hash;
    hash = product(hash, 0x58f38ded);
    value = product(value, hash);
    return BigInt((value ^ (value >>> 16)) >>> 0);
  });
  return [out[0] | (out[1] << 32n), out[2] | (out[3] << 32n)];
}

const MASK = (1n << 64n) - 1n;

// Ten rounds for each block of 256 bits, given as eight words of 32.
function* wordsOf([first, second]) {
  for (let counter = 1n; ; counter++) {
    let [a, b, c, d] = [counter, 0n, 0n, 0n], k = first, l = second;
    for (let round = 0; round < 10; round++) {
      const x = 0xd2e7470ee14c6c93n * a, y = 0xca5a826395121157n * c;
      [a, b, c, d] = [(y >> 64n) ^ b ^ k, y & MASK, (x >> 64n) ^ d ^ l, x & MASK];
      k = (k + 0x9e3779b97f4a7c15n) & MASK;
      l = (l + 0xbb67ae8584caa73bn) & MASK;
    }
    for (const word of [a, b, c, d]) {
      yield Number(word & 0xffffffffn);
      yield Number(word >> 32n);
    }
  }
}

// The layers, all of one area: their right ends x, from the narrowest, and the density there.
const EDGE = 3.6541528853610088, AREA = 0.00492867323397465524494, SCALE = 2 ** 23;
const density = (x) => Math.exp(-0.5 * x * x);
const ends = new Float64Array(256);
ends[255] = EDGE;
for (let i = 255; i > 1; i--) ends[i - 1] = Math.sqrt(-2 * Math.log(AREA / ends[i] + density(ends[i])));
// The lowest layer has the tail, as if it were a rectangle of the same height.
const base = AREA / density(EDGE);
const heights = Float32Array.from(ends, density);
const widths = Float32Array.from(ends, (x, i) => (i ? x : base) / SCALE);
const inside = Array.from(ends, (x, i) => Math.floor(((i ? ends[i - 1] / x : EDGE / base)) * SCALE));

const float = Math.fround, edge = float(EDGE), share = float(1 / EDGE);

function normal(next) {
  const uniform = () => float((next() >>> 8) * 2 ** -24);
  for (;;) {
    const bits = next(), layer = bits & 0xff, negative = (bits >>> 8) & 1, size = (bits >>> 9) & 0x7fffff;
    const x = float((negative ? -size : size) * widths[layer]);
    if (size < inside[layer]) return x;
    if (layer === 0) {
      for (;;) {
        const beyond = float(-share * float(Math.log1p(-uniform()))), y = float(-float(Math.log1p(-uniform())));
        if (float(y + y) > float(beyond * beyond)) return (size >>> 8) & 1 ? -float(edge + beyond) : float(edge + beyond);
      }
    }
    const height = float(float(float(heights[layer - 1] - heights[layer]) * uniform()) + heights[layer]);
    if (height < Math.exp(-0.5 * x * x)) return x;
  }
}

// The noise of one image: draw 0 starts a sample, the others follow between evaluations.
export function noise(seed, image, draw, size) {
  const words = wordsOf(keyOf([seed, image, draw]));
  const next = () => words.next().value, out = new Float32Array(size);
  for (let i = 0; i < size; i++) out[i] = normal(next);
  return out;
}
