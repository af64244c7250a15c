"""What a device can do, and what share of it training and sampling reach.

    python benchmarks/device.py --backend torch --device cuda --networks unet-tiny:256 adm-imagenet64:32
    python benchmarks/device.py --backend torch --device cuda --networks adm-imagenet64:32 --peer CHECKOUT

The first lines are the device's own peaks in the same process: a product of matrices and a convolution, in float32 and bfloat16,
and a copy. Then, for each network and batch, a train step of the recipe ``ect`` and samples of one evaluation, in both precisions,
eagerly and compiled: images a second, and the share of the peak of that precision, counted as three evaluations' multiply-adds for
a gradient and one for the target. With ``--peer``, the path of a checkout of openai/consistency_models, its U-Net of ImageNet-64 and ours take
turns in one evaluation and its gradient (theirs with its attention of plain arithmetic, bfloat16 by autocast). Times are medians of ``--repeats`` blocks.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from turns import take_turns

import cmcore as cm
from cmcore.networks.cost import multiply_adds, parameters
from cmcore.run.network_settings import of_name

PRECISIONS = {"float32": None, "bfloat16": "bfloat16"}


def seconds(work: Callable[[], Any], wait: Callable[[Any], object], repeats: int, least: float = 0.2) -> float:
    """The median time of a call, in blocks that last at least so long, after two calls that are not counted."""
    wait(work())
    start = time.perf_counter()
    wait(work())
    calls = max(1, math.ceil(least / max(1e-6, time.perf_counter() - start)))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls):
            out = work()
        wait(out)
        times.append((time.perf_counter() - start) / calls)
    return statistics.median(times)


def peaks(backend: Any, wait: Callable[[Any], object], repeats: int, side: int) -> dict[str, float]:
    """The operations a second that a product of two square matrices reaches, by precision; a convolution's and a copy's are printed."""
    chance = np.random.default_rng(0)
    reached = {}
    for precision in PRECISIONS:
        a, b = (backend.asarray(chance.standard_normal((side, side), np.float32), precision) for _ in range(2))
        product = backend.compile(lambda a, b: a @ b)
        reached[precision] = 2 * side**3 / seconds(lambda: product(a, b), wait, repeats)  # noqa: B023
        print(f"peak, product of {side} x {side}, {precision}: {reached[precision] / 1e12:.2f} TFLOP/s", flush=True)
    for channels in (32, 256):
        net = backend.network(_Convolutions((channels, 32, 32)), compute=None)
        x = backend.asarray(chance.standard_normal((256 if side > 2048 else 8, channels, 32, 32), np.float32))
        conv = backend.compile(lambda x: backend.stop_gradient(net(x, x[:, 0, 0, 0])))  # noqa: B023
        work = 2 * x.shape[0] * multiply_adds(_Convolutions((channels, 32, 32)))
        rate = work / seconds(lambda: conv(x), wait, repeats)  # noqa: B023
        print(f"peak, convolutions of {channels} channels, float32: {rate / 1e12:.2f} TFLOP/s", flush=True)
    big = backend.asarray(np.ones(2**28 if side > 2048 else 2**24, np.float32))
    copy = backend.compile(lambda x: x + 1)
    rate = 2 * 4 * big.shape[0] / seconds(lambda: copy(big), wait, repeats)
    print(f"peak, x + 1, bytes read and written: {rate / 1e9:.0f} GB/s", flush=True)
    return reached


class _Part(cm.networks.Part):
    def __init__(self, channels: int) -> None:
        self.convs = [cm.networks.layers.Conv(channels, channels, 3) for _ in range(4)]

    def __call__(self, x: Any, c_noise: Any) -> Any:
        h = self.enter(x)
        for conv in self.convs:
            h = conv(h)
        return self.leave(h)


def _convolutions() -> type:
    from dataclasses import dataclass
    from typing import ClassVar

    @dataclass(frozen=True)
    class Convolutions(cm.networks.Architecture):
        shape: tuple[int, ...]
        kind: ClassVar[str] = "benchmark-convolutions"

        def part(self) -> _Part:
            return _Part(self.shape[0])

    return Convolutions


_Convolutions = _convolutions()


def train_and_sample(backend: Any, wait: Any, name: str, batch: int, reached: dict[str, float], args: Any) -> None:
    """Print a line for each precision and way of execution."""
    preset = cm.networks.PRESETS.get(name)
    shape, classes = (preset.shape, preset.classes) if preset else ((3, 32, 32), 0)
    architecture = preset(shape, classes) if preset else of_name(name)(shape=shape)
    products = multiply_adds(architecture)
    print(f"{name}: {parameters(architecture):,} parameters, {products:,} multiply-adds, batch {batch}", flush=True)
    x = backend.asarray(np.random.default_rng(0).standard_normal((batch, *shape), np.float32) / 2)
    cond = {"label": backend.asarray(np.zeros(batch, np.int32))} if classes else {}
    weights = architecture.init(0)
    recipe = cm.recipes.get("ect", algorithm="adam")

    def training(net: Any, compiled: bool) -> Callable[[], Any]:
        trainer = cm.Trainer(backend, net, recipe.train_spec(compiled=compiled))
        steps = iter(range(10**9))
        return lambda: trainer.step((k := next(steps)), x, recipe.scalars(k, 10**6), cond)

    def sampling(net: Any, compiled: bool) -> Callable[[], Any]:
        f = recipe.function(net)

        def one(z: Any) -> Any:
            return cm.sampling.onestep(f, z, cond=cond)

        eager = cm.backend.without_gradients(backend, one)
        made = backend.compile(eager) if compiled else eager
        return lambda: made(x)

    for precision in args.precisions:
        for way in args.ways:
            for what, work, evaluations in (("train", training, 4), ("sample", sampling, 1)):
                try:
                    net = backend.network(architecture, weights, compute=PRECISIONS[precision])
                    took = seconds(work(net, way == "compiled"), wait, args.repeats)
                except Exception as failure:  # what a device cannot do is a line of the table
                    print(f"  {what}, {precision}, {way}: {type(failure).__name__}: {str(failure)[:200]}", flush=True)
                    continue
                share = 2 * evaluations * products * batch / took / reached[precision]
                print(
                    f"  {what}, {precision}, {way}: {took * 1e3:.2f} ms, {batch / took:,.0f} images/s, {share:.0%} of the peak",
                    flush=True,
                )


def against(checkout: str, backend: Any, wait: Any, batch: int, repeats: int, ways_asked: list[str]) -> None:
    """Print the ratio of our U-Net's time to openai's, in an evaluation with its gradient and without."""
    import torch
    from peers import openai_unet

    theirs = openai_unet(checkout).UNetModel(
        image_size=64, in_channels=3, model_channels=192, out_channels=3, num_res_blocks=3, attention_resolutions=(2, 4, 8),
        channel_mult=(1, 2, 3, 4), num_classes=1000, num_head_channels=64, use_scale_shift_norm=True,
        resblock_updown=True, use_new_attention_order=False,
    ).to(backend.device)  # fmt: skip
    preset = cm.networks.PRESETS["adm-imagenet64"]
    ours = backend.network(preset(preset.shape, preset.classes), compute="bfloat16")
    x, t = torch.randn(batch, 3, 64, 64, device=backend.device), torch.rand(batch, device=backend.device)
    y = torch.zeros(batch, dtype=torch.long, device=backend.device)

    def in_bfloat16() -> Any:
        # Its own float16 fails where its attention is not the fused one.
        with torch.autocast(backend.device.partition(":")[0], torch.bfloat16):
            return theirs(x, t, y=y)

    ways = {
        "openai's, bfloat16": in_bfloat16,
        "ours, bfloat16": lambda: ours(x, t, label=y),
    }
    if "compiled" in ways_asked:
        fast = torch.compile(ours, dynamic=False)
        ways["ours, bfloat16, compiled"] = lambda: fast(x, t, label=y)

    def gradient(f: Any) -> Any:
        def work() -> Any:
            f().float().square().mean().backward()
            return x

        return work

    def evaluation(f: Any) -> Any:
        def work() -> Any:
            with torch.no_grad():
                return f()

        return work

    for what, made in (("evaluation", evaluation), ("evaluation and gradient", gradient)):
        times = take_turns({name: made(f) for name, f in ways.items()}, repeats, 0.2, wait)
        first = statistics.median(times["openai's, bfloat16"])
        for name, took in times.items():
            print(
                f"  {what}, {name}: {statistics.median(took) * 1e3:.1f} ms, {first / statistics.median(took):.2f} times as fast",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--device")
    parser.add_argument("--networks", nargs="+", default=["unet-tiny:8"], metavar="NAME:BATCH")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--side", type=int, default=8192, help="of the matrices (1024 on a CPU)")
    parser.add_argument("--ways", nargs="+", choices=("eager", "compiled"), default=["eager", "compiled"])
    parser.add_argument("--precisions", nargs="+", choices=tuple(PRECISIONS), default=list(PRECISIONS))
    parser.add_argument("--peer", metavar="CHECKOUT")
    args = parser.parse_args()
    backend = cm.use(args.backend, device=args.device)
    print(cm.backend.describe(backend), flush=True)

    def wait(out: Any) -> object:
        while isinstance(out, (tuple, list)):
            out = out[0]
        return backend.to_numpy(out.reshape(-1)[:1])

    reached = peaks(backend, wait, args.repeats, args.side if backend.device != "cpu" else 1024)
    for case in args.networks:
        name, _, batch = case.partition(":")
        train_and_sample(backend, wait, name, int(batch or 8), reached, args)
    if args.peer:
        against(args.peer, backend, wait, int(args.networks[-1].partition(":")[2]), args.repeats, args.ways)


if __name__ == "__main__":
    main()
