"""A made-up framework, NumPy arrays in boxes with derivatives by central differences, and its backend of cmcore.

A box holds its array in *lanes*: in the first as it is, in each other with one number changed. Functions act on all lanes, so
that all derivatives of a loss are taken at once and no function needs a rule of its own; a derivative within another has its
lanes for each of the other's.
"""

from types import SimpleNamespace

import numpy as np

import cmcore as cm
from cmcore.networks import generic
from cmcore.optimization import radam_factors

STEP, LANES = 1e-4, [1]  # the size of a difference, the number of lanes in the evaluation under way and those around it


class Boxed(np.lib.mixins.NDArrayOperatorsMixin):
    count = property(lambda self: len(self.lanes))
    shape = property(lambda self: self.lanes.shape[1:])
    ndim = property(lambda self: self.lanes.ndim - 1)
    dtype = property(lambda self: self.lanes.dtype)
    T = property(lambda self: Boxed(self.lanes.transpose(0, *range(self.ndim, 0, -1))))

    def __init__(self, lanes):
        self.lanes = lanes

    def __array_namespace__(self, *, api_version=None):
        return np  # not true: the backend's own namespace must be found before

    def __array_ufunc__(self, ufunc, method, *inputs):
        return Boxed(ufunc(*aligned(*inputs)))

    def __getitem__(self, key):
        return Boxed(self.lanes[(slice(None), *(key if isinstance(key, tuple) else (key,)))])

    def repeated(self, count):
        return self.lanes if self.count in (1, count) else np.tile(self.lanes, (count // self.count, *[1] * self.ndim))


def aligned(*arrays):
    """Arrays of one rank with the boxes' lanes in the first axis; numbers as they are."""
    boxes = [a for a in arrays if isinstance(a, Boxed)]
    rank, count = max(b.ndim for b in boxes), max(b.count for b in boxes)
    lanes = {id(b): b.repeated(count).reshape(-1, *[1] * (rank - b.ndim), *b.shape) for b in boxes}
    return [lanes.get(id(a), a) for a in arrays]


def asarray(x, *, dtype=None, device=None):
    return Boxed(x.lanes.astype(dtype or x.dtype) if isinstance(x, Boxed) else np.array(x, dtype)[None])


def full(shape, value, *, dtype=None, device=None):
    return asarray(np.full(shape, value, dtype))


def broadcast_to(x, shape):
    lanes = x.lanes.reshape(-1, *[1] * (len(shape) - x.ndim), *x.shape)
    return Boxed(np.broadcast_to(lanes, (x.count, *shape)))


def axes(x, axis):
    return tuple(int(a) % x.ndim + 1 for a in (range(x.ndim) if axis is None else np.atleast_1d(axis)))


def reduction(name):
    return lambda x, *, axis=None, keepdims=False: Boxed(getattr(x.lanes, name)(axis=axes(x, axis), keepdims=keepdims))


def concat(arrays, *, axis):
    parts = aligned(*arrays)
    count = max(len(p) for p in parts)
    return Boxed(np.concat([np.broadcast_to(p, (count, *p.shape[1:])) for p in parts], axes(arrays[0], axis)[0]))


xp = SimpleNamespace(
    asarray=asarray,
    broadcast_to=broadcast_to,
    concat=concat,
    zeros=lambda shape, *, dtype=None, device=None: full(shape, 0.0, dtype=dtype),
    arange=lambda stop, *, dtype=None, device=None: asarray(np.arange(stop, dtype=dtype)),
    full_like=lambda x, value: full(x.shape, value, dtype=x.dtype),
    ones_like=lambda x: full(x.shape, 1, dtype=x.dtype),
    zeros_like=lambda x: full(x.shape, 0, dtype=x.dtype),
    astype=lambda x, dtype: asarray(x, dtype=dtype),
    where=lambda condition, a, b: Boxed(np.where(*aligned(condition, a, b))),
    clip=lambda x, low, high: np.minimum(np.maximum(x, low), high),
    reshape=lambda x, shape: Boxed(x.lanes.reshape(x.count, *shape)),
    permute_dims=lambda x, order: Boxed(x.lanes.transpose(0, *axes(x, order))),
    moveaxis=lambda x, start, end: Boxed(np.moveaxis(x.lanes, axes(x, start)[0], axes(x, end)[0])),
    # Numbers of rows are the same in all lanes: nothing is differentiated by them.
    take=lambda x, rows, *, axis: Boxed(x.lanes.take(rows.lanes[0], axes(x, axis)[0])),
    cumulative_sum=lambda x: Boxed(x.lanes.cumsum(axis=1)),
    matrix_transpose=lambda x: Boxed(x.lanes.swapaxes(-1, -2)),
    expand_dims=lambda x, *, axis: Boxed(np.expand_dims(x.lanes, axis % (x.ndim + 1) + 1)),
    squeeze=lambda x, *, axis: Boxed(x.lanes.squeeze(axes(x, axis))),
    stack=lambda arrays, *, axis: concat([xp.expand_dims(a, axis=axis) for a in arrays], axis=axis),
    **{name: reduction(name) for name in ("max", "mean", "min", "sum")},
    # What acts on numbers one by one, and matmul, NumPy applies to boxes by their __array_ufunc__.
    **{name: getattr(np, name) for name in "abs atan cos exp expm1 floor log log1p matmul maximum minimum".split()},
    **{name: getattr(np, name) for name in "sin sqrt tan tanh bool int32 int64 float32 float64 finfo isdtype".split()},
)


def derivatives(f, arrays, changes):
    """``f(*arrays)``, (lanes, ...), and its derivatives along n changes, (n, lanes, ...); each array has n of them."""
    n, outer, moved = len(changes[0]), LANES[-1], []
    for x, change in zip(arrays, changes, strict=True):
        base = np.broadcast_to(x.repeated(outer), (outer, *x.shape)).astype(np.float64)
        step = STEP * np.broadcast_to(change, (n, *base.shape))
        moved.append(Boxed(np.concat([base[None], base + step, base - step]).reshape(-1, *x.shape)))
    LANES.append((2 * n + 1) * outer)
    try:
        out = f(*moved)
        lanes = np.broadcast_to(out.repeated(LANES[-1]), (LANES[-1], *out.shape)).reshape(-1, outer, *out.shape)
    finally:
        LANES.pop()
    return lanes[0], (lanes[1 : n + 1] - lanes[n + 1 :]) / (2 * STEP)


def joined(arrays):
    """Arrays by name as one vector in float64."""
    return asarray(concat([xp.reshape(a, (-1,)) for a in arrays.values()], axis=0), dtype=np.float64)


def named(vector, like):
    """The parts of a vector, shaped and named like arrays."""
    ends = np.cumsum([np.prod(a.shape, dtype=int) for a in like.values()])
    return {
        n: xp.reshape(vector[e - np.prod(a.shape, dtype=int) : e], a.shape)
        for (n, a), e in zip(like.items(), ends, strict=True)
    }


def gradient(loss, vector):
    """The value of a loss and its gradient by a vector."""
    value, slopes = derivatives(loss, [vector], [np.eye(*vector.shape)[:, None]])
    return Boxed(value), asarray(slopes[:, 0])


class Stream:
    def __init__(self, seed, index):
        self.rng = np.random.default_rng((seed, index))

    def normal(self, shape, dtype="float32"):
        return asarray(self.rng.standard_normal(shape, dtype))

    def uniform(self, shape, dtype="float32"):
        return asarray(self.rng.random(shape, dtype))


class Backend:
    name, device, trainable, xp, programs, compile_from = "boxed", "cpu", True, xp, {}, 1

    def version(self):
        return np.__version__

    def devices(self):
        return ("cpu",)

    def on(self, device):
        if device not in (None, "cpu"):
            raise ValueError(f"Boxes are on the cpu only, not on {device!r}.")
        return self

    def float_types(self):
        return ("float32", "float64")

    def owns(self, x):
        return isinstance(x, Boxed)

    def asarray(self, host, dtype=None):
        return asarray(host, dtype=dtype)

    def to_numpy(self, x):
        return np.array(x.lanes[0])

    def stream(self, seed, index=0):
        return Stream(seed, index)

    def stop_gradient(self, x):
        return Boxed(x.lanes[:1])

    def value_and_grad(self, loss):
        def call(net, *args):
            weights = generic.weights_of(net)
            at = lambda vector: loss(generic.with_weights(net, named(vector, weights)), *args)  # noqa: E731
            value, slope = gradient(at, joined(weights))
            return value, {n: asarray(g, dtype=weights[n].dtype) for n, g in named(slope, weights).items()}

        return call

    def jvp(self, f, primals, tangents):
        value, (slope,) = derivatives(f, primals, [t.repeated(LANES[-1])[None] for t in tangents])
        kind = np.float64 if len(LANES) > 1 else primals[0].dtype  # what is to be differentiated again keeps its digits
        return tuple(asarray(Boxed(v), dtype=kind) for v in (value, slope))

    def compile(self, f):
        return f

    def network(self, architecture, weights=None, *, seed=0, dtype="float32", compute=None, recompute=False):
        if compute or recompute:
            raise cm.Error("Boxed networks compute in the type of their weights and keep what they compute.")
        values = architecture.init(seed) if weights is None else weights
        return generic.build(architecture, values, lambda w: asarray(w, dtype=dtype))

    def weights(self, net):
        return {name: self.to_numpy(w) for name, w in generic.weights_of(net).items()}

    def train_step(self, net, spec, frozen):
        return TrainStep(net, spec, frozen)


BACKEND = Backend()


class TrainStep:
    """In float64 throughout."""

    def __init__(self, net, spec, frozen):
        self.net, self.spec, self.like = net, spec, generic.weights_of(net)
        self.nets = {
            n: generic.with_weights(f, named(joined(w), w)) for n, f in frozen.items() for w in [generic.weights_of(f)]
        }
        self.vectors = dict.fromkeys(("online", *spec.averages), joined(self.like))
        self.memory = {"m": 0 * joined(self.like), "v": 0 * joined(self.like), "step": asarray(0)}

    def __call__(self, index, x0, scalars, cond):
        x0, (values, cond) = asarray(x0), ({n: asarray(v) for n, v in given.items()} for given in (scalars, cond))
        drawn = self.spec.draw(Stream(self.spec.seed, index), x0.shape, x0.dtype, x0.dtype)
        x0, z, tau = (asarray(a, dtype=np.float64) for a in (x0, *drawn))

        def loss(vector):
            target = self.vectors["target"] if self.spec.keep_target else vector
            own = {
                n: generic.with_weights(self.net, named(v, self.like))
                for n, v in (("online", vector), ("target", target))
            }
            parts = [
                self.spec.mean_loss(self.nets | own, *part[:3], values, part[3])
                for part in self.spec.parts(x0, z, tau, cond)
            ]
            return sum(parts[1:], parts[0]) / self.spec.accumulate

        mean, slope = gradient(loss, self.vectors["online"])
        self.update(slope, scalars["lr"])
        for kind in self.spec.averages:
            decay = scalars[f"{kind}_decay"]
            self.vectors[kind] = decay * self.vectors[kind] + (1 - decay) * self.vectors["online"]
        return mean

    def update(self, g, lr):
        """RAdam, Adam or AdamW."""
        settings, memory, w = self.spec.optimizer, self.memory, self.vectors["online"]
        step, (b1, b2) = int(memory["step"].lanes[0]) + 1, settings.betas
        norm = float(np.sqrt(xp.sum(g**2)).lanes[0])
        g = g * (settings.clip / norm if 0 < settings.clip < norm else 1.0)
        m, v = b1 * memory["m"] + (1 - b1) * g, b2 * memory["v"] + (1 - b2) * g**2
        self.memory = {"m": m, "v": v, "step": asarray(step)}
        if settings.algorithm == "radam":
            first, adaptive = radam_factors(step, settings.betas)
            update = first * m * (adaptive / (np.sqrt(v) + settings.eps) if adaptive else 1.0)
        else:
            update = m / (1 - b1**step) / (np.sqrt(v / (1 - b2**step)) + settings.eps)
        self.vectors["online"] = w - lr * (update + settings.weight_decay * w)

    def state(self):
        return {kind: named(v, self.like) for kind, v in self.vectors.items()} | {"optimizer": self.memory}

    def expected(self, names):
        return self.state()

    def restore(self, state):
        state = {group: {n: asarray(a) for n, a in arrays.items()} for group, arrays in state.items()}
        self.memory = state.pop("optimizer")
        self.vectors = {kind: joined({n: arrays[n] for n in self.like}) for kind, arrays in state.items()}
