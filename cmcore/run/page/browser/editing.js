// Multistep sampling, inpainting and strokes as cmcore.sampling and cmcore.editing have them, of n pictures at once.
//
// `f(x, t)` is one evaluation and `noise(draw)` what is standard normal, all of them arrays of n pictures' numbers.

const float = Math.fround;

// Points of the Karras grid from t_max down to t_min, the latter left out (cmcore.editing.edit_times).
export function editTimes(steps, tMin, tMax, rho = 7) {
  const low = tMin ** (1 / rho), high = tMax ** (1 / rho);
  return Array.from({ length: steps }, (_, i) => (high + (i / steps) * (low - high)) ** rho);
}

const added = (t, tMin) => Math.sqrt((t - tMin) * (t + tMin));

const plus = (x, std, z) => x.map((v, i) => float(v + std * z[i]));

// Song et al. 2023, algorithm 1.
export async function multistep(f, times, noise, arrival, told) {
  let x = null;
  for (const [i, t] of times.entries()) {
    x = await f(i ? plus(x, added(t, arrival), noise(i)) : noise(0).map((z) => t * z), t);
    told(i, t, x);
  }
  return x;
}

// Song et al. 2023, algorithm 4, without a change of basis; where `known` is null nothing is. `start` is what is known and 0 elsewhere,
// or a guide with strokes (Meng et al. 2022).
export async function refined(f, start, known, times, noise, arrival) {
  let x = start;
  for (const [i, t] of times.entries()) {
    x = await f(plus(x, i ? added(t, arrival) : t, noise(i)), t);
    if (known) x = x.map((v, j) => (known.mask[j] ? known.picture[j] : v));
  }
  return x;
}

// Between two noises along the great circle (cmcore.editing.spherical).
export function spherical(a, b, share) {
  const long = length(a), wide = length(b);
  const apart = length(a.map((v, i) => v / long - b[i] / wide)), along = length(a.map((v, i) => v / long + b[i] / wide));
  const angle = 2 * Math.atan2(apart, along), sine = Math.sin(angle);
  const [first, last] = sine < 3e-4 ? [1 - share, share] : [Math.sin((1 - share) * angle) / sine, Math.sin(share * angle) / sine];
  return a.map((v, i) => first * v + last * b[i]);
}

const length = (v) => Math.sqrt(v.reduce((sum, x) => sum + x * x, 0));
