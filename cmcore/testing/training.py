"""The train step: what reaches it, what it averages, and that it can be resumed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from cmcore.backend import Array, Backend, Loss, Network, namespace
from cmcore.optimization import Optimizer
from cmcore.testing._tools import (
    CONDITIONED,
    DROPPING,
    MLP,
    if_trainable,
    network_input,
    random_weights,
    refuses,
    require,
    same_weights,
)
from cmcore.training import DROPOUT, Trainer, TrainSpec, dropout_key


@if_trainable
def check_trainer_learns(backend: Backend, dtype: str = "float32") -> None:
    """Each optimiser lowers the loss and leaves the network it was given alone."""
    for algorithm in ("radam", "adam", "adamw"):
        net = backend.network(MLP, random_weights(MLP), dtype=dtype)
        settings = Optimizer(algorithm, clip=1.0, weight_decay=0.01 if algorithm == "adamw" else 0.0)
        trainer = Trainer(backend, net, TrainSpec(_error, optimizer=settings, compiled=_compiled(dtype)))
        losses = [_step(backend, trainer, i, dtype, lr=1e-2) for i in range(_steps(dtype))]
        late, early = np.mean(losses[-4:]), np.mean(losses[:4])
        require(bool(late < 0.9 * early), f"{algorithm}: the loss went from {early} to {late}.")
        same_weights(backend.weights(net), random_weights(MLP), "The weights of the network given to a trainer")


@if_trainable
def check_trainer_scalars(backend: Backend, dtype: str = "float32") -> None:
    """The learning rate, and scalars of the caller's own, reach the step at every call."""
    trainer = _trainer(backend, lambda nets, x0, z, tau, s, cond: s["mine"] * _error(nets, x0, z, tau, s, cond), dtype)
    for i in range(4):
        before = trainer.weights("online")
        _step(backend, trainer, i, dtype, lr=0.0, mine=1.0)
        same_weights(trainer.weights("online"), before, "The weights after a step with a learning rate of 0")
    before = trainer.weights("online")
    _step(backend, trainer, 4, dtype, lr=1e-2, mine=1.0)
    require(
        any((before[n] != w).any() for n, w in trainer.weights("online").items()), "The learning rate has no effect."
    )
    one, two = (_step(backend, trainer, 5, dtype, lr=0.0, mine=m) for m in (1.0, 2.0))
    require(math.isclose(two, 2 * one, rel_tol=1e-5), "A scalar of the caller's own does not reach the loss.")


@if_trainable
def check_trainer_random_numbers(backend: Backend, dtype: str = "float32") -> None:
    """Step i draws z, then tau, from stream(seed, i): uniform or normal as asked for, afresh at each step."""
    for distribution in ("uniform", "normal"):
        _require_draws(backend, dtype, distribution, (0, 1, 2, 3, 7))


@if_trainable
def check_trainer_draws(backend: Backend, dtype: str = "float32") -> None:
    """Several draws have names, those of each distribution are drawn at once, (B, number), after z; none are refused."""
    _require_draws(backend, dtype, {"a": "normal", "b": "uniform", "c": "normal"}, (0, 1, 2))
    _require_draws(backend, dtype, {"a": "uniform", "b": "uniform"}, (1,))
    refuses(ValueError, lambda: TrainSpec(_error, tau={}), "TrainSpec() with tau={}")


def _require_draws(backend: Backend, dtype: str, tau: str | dict[str, str], steps: tuple[int, ...]) -> None:
    x0, _, _ = network_input(MLP)
    distributions, count = tau if isinstance(tau, dict) else {"tau": tau}, len(x0)

    def loss(nets: Any, x0: Array, z: Array, drawn: Any, s: Any, cond: Any) -> Array:
        each = drawn if isinstance(tau, dict) else {"tau": drawn}
        shapes = {name: tuple(values.shape) for name, values in each.items()}
        require(shapes == dict.fromkeys(distributions, (count,)), f"With tau={tau!r} the loss is given {shapes}.")
        # Each counts by its number, so that their order shows.
        taus = sum(float(k) * each[name] for k, name in enumerate(distributions, 1))
        return 0.0 * _error(nets, x0, z, taus, s, cond) + namespace(z).sum(z**2, axis=1) + 10.0 * taus

    net = backend.network(MLP, dtype=dtype)
    trainer = Trainer(backend, net, TrainSpec(loss, tau=tau, seed=11, compiled=_compiled(dtype)))
    for index in steps:
        stream, taus = backend.stream(11, index), 0.0
        z = backend.to_numpy(stream.normal(x0.shape, dtype))
        for distribution in dict.fromkeys(distributions.values()):
            numbers = [k for k, name in enumerate(distributions, 1) if distributions[name] == distribution]
            shape = (count,) if len(distributions) == 1 else (count, len(numbers))
            drawn = backend.to_numpy(getattr(stream, distribution)(shape, dtype)).reshape(-1, len(numbers))
            taus = taus + drawn @ np.asarray(numbers, float)
        expected = float(np.mean((z**2).sum(1) + 10.0 * taus))
        got = _step(backend, trainer, index, dtype, lr=1e-3)
        require(
            math.isclose(got, expected, rel_tol=1e-4),
            f"Step {index} did not draw its z and its tau, {tau!r}, from stream(11, {index}).",
        )


@if_trainable
def check_trainer_log_weight(backend: Backend, dtype: str = "float32") -> None:
    """The log weight is trained with the rest: of ``e^w L - w`` with L = 3 it becomes -ln 3."""

    def weighted(nets: Any, x0: Array, z: Array, tau: Array, s: Any, cond: Any) -> Array:
        w = nets["online"].log_weight(tau)
        return namespace(w).exp(w) * 3.0 - w + 0.0 * _error(nets, x0, z, tau, s, cond)

    architecture = replace(MLP, log_weight=True)
    net = backend.network(architecture, dtype=dtype)
    trainer = Trainer(backend, net, TrainSpec(weighted, Optimizer("adam"), compiled=_compiled(dtype)))
    for i in range(_steps(dtype)):
        last = _step(backend, trainer, i, dtype, lr=0.05)
    least = 1.0 + math.log(3.0)
    require(last < 0.5 * (3.0 + least), f"The log weight is not trained: the loss is {last}, from 3 towards {least}.")
    state = trainer.state()
    require("ema/log_weight.weight" in state, "The log weight belongs to the average too.")


@if_trainable
def check_trainer_average(backend: Backend, dtype: str = "float32") -> None:
    """weights("ema") is ``decay * average + (1 - decay) * online``, after each step, with that step's decay."""
    trainer = _trainer(backend, _error, dtype)
    average = {n: w.astype(np.float64) for n, w in random_weights(MLP).items()}
    same_weights(trainer.weights("ema"), random_weights(MLP), "The average before the first step")
    for i, decay in enumerate((0.9, 0.5, 0.0, 0.99, 1.0)):
        _step(backend, trainer, i, dtype, lr=1e-2, ema_decay=decay)
        online, got = trainer.weights("online"), trainer.weights("ema")
        average = {n: decay * a + (1 - decay) * online[n] for n, a in average.items()}
        for name, a in average.items():
            error = np.abs(got[name] - a).max()
            require(bool(error < 1e-6), f"After step {i} with decay {decay} the average of {name} is off by {error}.")


@if_trainable
def check_trainer_target(backend: Backend, dtype: str = "float32") -> None:
    """The target network is the online one, or its average with decay "target_decay" if that is kept."""

    def outputs(nets: Any, x0: Array, z: Array, tau: Array, s: Any, cond: Any) -> Array:
        target = backend.stop_gradient(nets["target"](0.1 * x0, 0.0 * tau))
        probe = namespace(x0).mean(target**2, axis=1)
        return s["train"] * _error(nets, x0, z, tau, s, cond) + (1.0 - s["train"]) * probe

    x0, _, _ = network_input(MLP)

    def expected(weights: Mapping[str, np.ndarray]) -> float:
        net = backend.network(MLP, weights, dtype=dtype)
        out = net(backend.asarray(0.1 * x0, dtype), backend.asarray(np.zeros(len(x0)), dtype))
        return float((backend.to_numpy(out) ** 2).mean())

    for keep_target, decays in ((False, (0.5,)), (True, (1.0, 0.75, 0.0))):
        trainer = _trainer(backend, outputs, dtype, keep_target=keep_target)
        average = {n: w.astype(np.float64) for n, w in random_weights(MLP).items()}
        for i, decay in enumerate(decays):
            _step(backend, trainer, 2 * i, dtype, lr=3e-2, train=1.0, target_decay=decay)
            online = trainer.weights("online")
            average = {n: decay * a + (1 - decay) * online[n] for n, a in average.items()}
            seen = _step(backend, trainer, 2 * i + 1, dtype, lr=0.0, train=0.0, target_decay=1.0)
            wanted = expected(average if keep_target else online)
            require(
                math.isclose(seen, wanted, rel_tol=1e-4),
                f"With keep_target={keep_target} and decay {decay}, the target network is not what it should be.",
            )


@if_trainable
def check_trainer_frozen(backend: Backend, dtype: str = "float32") -> None:
    """A frozen network reaches the loss under its name and stays as it is; conditions reach the loss."""

    def probe(nets: Any, x0: Array, z: Array, tau: Array, s: Any, cond: Any) -> Array:
        return namespace(x0).mean((nets["online"](x0, 0.0 * tau) - nets["teacher"](x0, 0.0 * tau, **cond)) ** 2, axis=1)

    teacher = backend.network(CONDITIONED, random_weights(CONDITIONED, 1), dtype=dtype)
    trainer = _trainer(backend, probe, dtype, frozen={"teacher": teacher})
    x0, _, label = network_input(CONDITIONED)
    cond = {"label": backend.asarray(label, "int32")}
    pictures = backend.asarray(x0, dtype), backend.asarray(np.zeros(len(x0)), dtype)
    online = backend.network(MLP, random_weights(MLP), dtype=dtype)
    difference = backend.to_numpy(online(*pictures)) - backend.to_numpy(teacher(*pictures, **cond))
    losses = [_step(backend, trainer, i, dtype, lr=1e-2, cond=cond) for i in range(_steps(dtype))]
    require(
        math.isclose(losses[0], float((difference**2).mean()), rel_tol=1e-4),
        "The frozen network or the condition does not reach the loss as it is.",
    )
    require(losses[-1] < 0.9 * losses[0], "Training against a frozen network does not lower the loss.")
    same_weights(
        backend.weights(teacher), random_weights(CONDITIONED, 1), "The weights of a frozen network after training"
    )


@if_trainable
def check_trainer_dropout(backend: Backend, dtype: str = "float32") -> None:
    """With dropout, cond["dropout"] is each step's own key, the same on resuming; frozen networks are not given it."""
    seed, x = 5, network_input(DROPPING)[0]
    net = backend.network(DROPPING, random_weights(DROPPING), dtype=dtype)

    def probe(nets: Any, x0: Array, z: Array, tau: Array, s: Any, cond: Any) -> Array:
        require(DROPOUT in cond, 'The step does not hand on cond["dropout"].')
        xp, key = namespace(x0), cond[DROPOUT]
        require(tuple(key.shape) == () and key.dtype == xp.int32, f"The key of dropout is {key.dtype}, not int32.")
        online, target, frozen, plain = (
            nets[name](x0, tau, **given)
            for name, given in (("online", cond), ("target", cond), ("frozen", cond), ("online", {}))
        )
        parts = {"pair": online - target, "frozen": frozen - plain, "dropped": online - plain}
        terms = [s[name] * xp.mean(difference**2, axis=1) for name, difference in parts.items()]
        return sum(terms[1:], terms[0]) + s["key"] * xp.astype(key, x0.dtype)

    spec = TrainSpec(probe, keep_target=True, dropout=True, seed=seed, compiled=_compiled(dtype))
    trainer = Trainer(backend, net, spec, {"frozen": net})

    def seen(by: Trainer, index: int, what: str) -> float:
        scalars = {name: float(name == what) for name in ("pair", "frozen", "dropped", "key")}
        scalars |= {"lr": 0.0, "ema_decay": 0.9, "target_decay": 0.9}
        return float(backend.to_numpy(by.step(index, backend.asarray(x, dtype), scalars)))

    for index in (0, 1, 7):
        expected, got = float(dropout_key(seed, index)), seen(trainer, index, "key")
        require(math.isclose(got, expected, rel_tol=1e-6), f"At step {index} the key of dropout is not the step's own.")
    dropped = seen(trainer, 2, "dropped")
    require(dropped > 1e-2, 'cond["dropout"] makes the trained network drop nothing.')
    require(seen(trainer, 2, "pair") < 1e-6, 'With one key, "online" and "target" do not drop the same.')
    require(seen(trainer, 2, "frozen") < 1e-6, "A frozen network is given the key of dropout.")
    require(seen(trainer, 3, "dropped") != dropped, "Two steps drop the same.")
    resumed = Trainer(backend, net, spec, {"frozen": net})
    resumed.restore(trainer.state())
    require(seen(resumed, 2, "dropped") == dropped, "A step drops other numbers once its training is resumed.")


@if_trainable
def check_trainer_parts(backend: Backend, dtype: str = "float32") -> None:
    """A batch in parts of its own size gives the loss and the weights of the whole; each part has its own key of dropout."""
    x0, _, _ = network_input(MLP)
    weight = backend.asarray(np.arange(1.0, len(x0) + 1), dtype)

    def ended(accumulate: int) -> tuple[list[float], dict[str, np.ndarray]]:
        def loss(nets: Any, x0: Array, z: Array, tau: Array, s: Any, cond: Any) -> Array:
            sizes = {int(a.shape[0]) for a in (x0, z, tau, cond["weight"])}
            require(
                sizes == {4 // accumulate}, f"With accumulate={accumulate} a part of 4 samples has {sizes} of them."
            )
            xp = namespace(x0)
            return cond["weight"] * xp.mean((nets["online"](x0 + 0.5 * z, tau) - z) ** 2, axis=1)

        # RAdam's first steps are linear in the gradient: rounding is not blown up where it is near 0.
        spec = TrainSpec(loss, Optimizer("radam"), accumulate=accumulate, compiled=_compiled(dtype))
        trainer = Trainer(backend, backend.network(MLP, random_weights(MLP), dtype=dtype), spec)
        cond = {"weight": weight}
        return [_step(backend, trainer, i, dtype, cond, lr=1e-2) for i in range(3)], trainer.weights("online")

    (losses, weights), (in_parts, reached) = ended(1), ended(2)
    require(np.allclose(in_parts, losses, rtol=1e-5, atol=0), f"The loss is {losses}, and in two parts {in_parts}.")
    off = max(float(np.abs(w - reached[n]).max()) for n, w in weights.items())
    require(off < 1e-6, f"In two parts the weights differ by {off}.")

    def key(nets: Any, x0: Array, z: Array, tau: Array, s: Any, cond: Any) -> Array:
        require(tuple(cond[DROPOUT].shape) == (), "A part has more than one key of dropout.")
        return tau * 0.0 + namespace(tau).astype(cond[DROPOUT], tau.dtype) + 0.0 * _error(nets, x0, z, tau, s, {})

    net = backend.network(DROPPING, random_weights(DROPPING), dtype=dtype)
    trainer = Trainer(backend, net, TrainSpec(key, accumulate=2, dropout=True, compiled=False))
    seen, keys = _step(backend, trainer, 3, dtype, lr=0.0), dropout_key(0, 3, 2)
    require(math.isclose(seen, float(keys.mean()), rel_tol=1e-6), "The parts' keys of dropout are not the step's own.")
    thirds = Trainer(backend, net, TrainSpec(_error, accumulate=3, compiled=False))
    refuses(ValueError, lambda: _step(backend, thirds, 0, dtype, lr=0.0), "A batch of 4 in 3 parts")


@if_trainable
def check_trainer_loss_shape(backend: Backend, dtype: str = "float32") -> None:
    """A loss that is not one number per sample is a `ValueError`."""
    trainer = _trainer(backend, lambda nets, x0, *rest: (nets["online"](x0, rest[1]) - x0) ** 2, dtype)
    refuses(ValueError, lambda: _step(backend, trainer, 0, dtype, lr=1e-2), "a loss that is not of shape (B,)")


@if_trainable
def check_trainer_resumes(backend: Backend, dtype: str = "float32") -> None:
    """What ``state`` returned, put into a new trainer, continues bit for bit."""
    # RAdam counts its steps: the seventh is of another kind than the first ones.
    one, two = (_trainer(backend, _error, dtype, keep_target=True, algorithm="radam") for _ in range(2))
    for i in range(7):
        _step(backend, one, i, dtype, lr=1e-2, ema_decay=0.9, target_decay=0.5)
    state = one.state()
    require(all(isinstance(v, np.ndarray) for v in state.values()), "state() must return NumPy arrays.")
    kept = {name: value.copy() for name, value in state.items()}
    two.restore(state)
    for i in range(7, 10):
        values = [_step(backend, t, i, dtype, lr=1e-2, ema_decay=0.9, target_decay=0.5) for t in (one, two)]
        require(values[0] == values[1], f"The loss of step {i} differs after restore().")
    other = two.state()
    for name, value in one.state().items():
        require(np.array_equal(value, other[name]), f"{name} differs after restore() and three steps.")
    require(all(np.array_equal(kept[n], v) for n, v in state.items()), "Training changed what state() had returned.")
    del kept[next(iter(kept))]
    refuses(ValueError, lambda: two.restore(kept), "restore() with an entry missing")


def _error(nets: Any, x0: Array, z: Array, tau: Array, s: Any, cond: Any) -> Array:
    """How badly the network tells 0.3 x0 from x0, (B,)."""
    return namespace(x0).mean((nets["online"](x0, tau) - 0.3 * x0) ** 2, axis=1)


def _trainer(
    backend: Backend,
    loss: Loss,
    dtype: str,
    *,
    keep_target: bool = False,
    frozen: Mapping[str, Network] | None = None,
    algorithm: str = "adam",
) -> Trainer:
    net = backend.network(MLP, random_weights(MLP), dtype=dtype)
    spec = TrainSpec(loss, Optimizer(algorithm), keep_target=keep_target, compiled=_compiled(dtype))
    return Trainer(backend, net, spec, frozen)


def _compiled(dtype: str) -> bool:
    return dtype == "float32"


def _steps(dtype: str) -> int:
    return 30 if _compiled(dtype) else 12  # eager steps are slow in some frameworks


def _step(
    backend: Backend,
    trainer: Trainer,
    index: int,
    dtype: str,
    cond: Mapping[str, Array] | None = None,
    **scalars: float,
) -> float:
    x0 = backend.asarray(network_input(MLP)[0], dtype)
    return float(backend.to_numpy(trainer.step(index, x0, {"ema_decay": 0.9, **scalars}, cond)))
