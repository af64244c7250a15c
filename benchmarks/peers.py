"""Side by side with others' programs on torch: the same network, weights, batch and threads, in turns in one process.

    python benchmarks/peers.py sampling
    python benchmarks/peers.py training CHECKOUT

``sampling`` needs diffusers: the network ``adm-tiny`` with random weights, exported to diffusers, sampled by its
``ConsistencyModelPipeline`` and by `cmcore.generate.Sampler`, each drawing its own noise. Before that both must make the same
pictures of the same noise, to 1e-4. ``training`` needs a checkout of openai/consistency_models, and scipy: the steps of its
``CMTrainLoop`` (consistency training, squared distance, 18 points, RAdam) and of our trainer with the recipe ``ct``, on our U-Net
with the weights of its own. Before that both losses must agree, sample by sample, for the same noise and times. Its attention
is that of plain arithmetic, since its default is a GPU's.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from turns import table, take_turns

import cmcore as cm
from cmcore.backend import Backend
from cmcore.generate import Sampler
from cmcore.model import DataFacts, Model

WAYS = {
    "ours, eager": (False, None),
    "ours, compiled": (True, None),
    "ours, bfloat16, eager": (False, "bfloat16"),
    "ours, bfloat16, compiled": (True, "bfloat16"),
}
"""Whether a way is compiled, and what its layers compute in."""
CLOSE = 1e-4


def randomised(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the weights with noise added to all: layers that start at zero would hide a difference."""
    rng = np.random.default_rng(0)
    return {n: (w + 0.02 * rng.standard_normal(w.shape)).astype(np.float32) for n, w in weights.items()}


def check(what: str, ours: Any, theirs: Any) -> None:
    """Print the largest difference, relative to the largest number; end the program if it is not small."""
    off = float(np.abs(np.asarray(ours) - np.asarray(theirs)).max() / np.abs(np.asarray(theirs)).max())
    print(f"{what}: at most {off:.1e} apart, relative to the largest")
    if not off < CLOSE:
        raise SystemExit(f"That is more than {CLOSE}: not the same thing is compared.")


def report(times: Mapping[str, list[float]], images: int, title: str, first: str) -> None:
    """Print a table."""
    print(f"\n| {title} | images/s | times as fast |\n|---|---|---|")
    print("\n".join(table(times, images, first)), flush=True)


def sampling(args: argparse.Namespace) -> None:
    """Compare with diffusers' pipeline, for one step and for two."""
    import diffusers

    backend, preset = cm.use("torch"), cm.networks.PRESETS["adm-tiny"]
    architecture = preset(args.shape)
    facts = DataFacts("random", args.shape, True)
    model = Model(cm.recipes.get("cd"), architecture, randomised(architecture.init(0)), facts)
    with tempfile.TemporaryDirectory() as folder:
        cm.export_model(model, "diffusers", folder)
        pipe = diffusers.ConsistencyModelPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pictures_agree(pipe, model, backend, args.shape)
    for steps in (1, 2):
        ways: dict[str, Callable[[], object]] = {}
        # As NumPy's arrays on both sides.
        ways["diffusers"] = partial(pipe, batch_size=args.batch, num_inference_steps=steps, output_type="np")
        for name in args.ways:
            compiled, compute = WAYS[name]
            sampler = Sampler(model, backend, args.batch, compute)
            if compiled:
                sampler.network(backend.compile_from)
            ways[name] = partial(sampler, args.batch, steps=steps)
        times = take_turns(ways, args.rounds, args.seconds)
        title = f"{steps} step{'s' * (steps > 1)}, {args.batch} pictures of {' x '.join(map(str, args.shape))}"
        report(times, args.batch, title, "diffusers")


def pictures_agree(pipe: Any, model: Model, backend: Backend, shape: tuple[int, ...]) -> None:
    """Check that both make the same pictures of the same noise."""
    net = backend.network(model.architecture, model.weights)
    z, noise = (torch.randn(4, *shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    for steps in (1, 2):
        theirs = pipe(
            batch_size=4, num_inference_steps=steps, latents=z, output_type="pt", generator=torch.Generator().manual_seed(2)
        ).images  # fmt: skip
        times = [float(s) for s in pipe.scheduler.sigmas[:steps]]
        with torch.no_grad():
            ours = model.recipe.sample(net, z, times, lambda i: noise)
        check(f"pictures of the same noise, steps: {steps}", (ours / 2 + 0.5).clamp(0, 1), theirs)


def training(args: argparse.Namespace) -> None:
    """Compare with openai's loop."""
    peer = Openai(args.checkout)
    side = args.shape[-1]
    theirs = peer.unet.UNetModel(
        image_size=side, in_channels=3, model_channels=args.width, out_channels=3, num_res_blocks=1,
        attention_resolutions=(2,), channel_mult=(1, 2), num_head_channels=32, use_scale_shift_norm=True,
        resblock_updown=True, use_new_attention_order=False,
    )  # fmt: skip
    start = randomised({name: w.numpy() for name, w in theirs.state_dict().items()})
    theirs.load_state_dict({name: torch.tensor(w) for name, w in start.items()})
    with tempfile.TemporaryDirectory() as folder:
        torch.save(theirs.state_dict(), Path(folder) / "model.pt")
        model = cm.import_model(Path(folder) / "model.pt", "openai", kind="consistency", side=side, head_width=32)
    backend, n, lr = cm.use("torch"), 18, 1e-4
    recipe = cm.recipes.get("ct", schedule="fixed", s1=n, mu0=0.95, lr=lr)
    x = 0.5 * torch.randn(args.batch, *args.shape, generator=torch.Generator().manual_seed(1))
    loop = peer.loop(theirs, args.batch, n, lr)

    # Their grid falls: the interval with number i from above is ours with the number n - 2 - i from below.
    torch.manual_seed(3)
    i = torch.randint(0, n - 1, (args.batch,))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    torch.manual_seed(3)
    found = loop.diffusion.consistency_losses(theirs, x, n, target_model=loop.target_model, noise=noise)["loss"]
    net = backend.network(model.architecture, model.weights)
    nets = {"online": net, "target": net}
    draws, scalars = {"t": (n - 2 - i + 0.5) / (n - 1)}, {"n": torch.tensor(float(n))}
    check(
        "losses of the same noise and times", recipe.loss(nets, x, noise, draws, scalars, {}).detach(), found.detach()
    )

    ways: dict[str, Callable[[], object]] = {"openai's loop": lambda: loop.run_step(x, {})}
    for name in args.ways:
        compiled, compute = WAYS[name]
        made = backend.network(model.architecture, model.weights, compute=compute)
        trainer = cm.Trainer(backend, made, recipe.train_spec(compiled=compiled))
        ways[name] = stepping(trainer, x, recipe)
    times = take_turns(ways, args.rounds, args.seconds)
    report(times, args.batch, f"train step, width {args.width}, batch {args.batch}", "openai's loop")


def stepping(trainer: Any, x: torch.Tensor, recipe: Any) -> Callable[[], object]:
    """Return a function that takes the next step."""
    numbers = iter(range(10**9))

    def step() -> object:
        k = next(numbers)
        return trainer.step(k, x, recipe.scalars(k, 10**6))

    return step


class Openai:
    """What is compared of a checkout of openai/consistency_models."""

    def __init__(self, checkout: str) -> None:
        self.unet = openai_unet(checkout)
        from cm import karras_diffusion, logger, script_util, train_util

        self._karras, self._train, self._script = karras_diffusion, train_util, script_util
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        logger.configure(dir=tempfile.mkdtemp(), format_strs=[])

    def loop(self, model: torch.nn.Module, batch: int, n: int, lr: float) -> Any:
        """Return its training loop, with its own optimiser and averages."""
        from cm.nn import update_ema

        target = copy.deepcopy(model)
        loop = self._train.CMTrainLoop(
            model=model,
            target_model=target,
            teacher_model=None,
            teacher_diffusion=None,
            training_mode="consistency_training",
            ema_scale_fn=self._script.create_ema_and_scales_fn("fixed", 0.95, "fixed", n, n, 10**6, 0),
            total_training_steps=10**6,
            diffusion=self._karras.KarrasDenoiser(distillation=True, weight_schedule="uniform", loss_norm="l2"),
            data=None,
            batch_size=batch,
            microbatch=-1,
            lr=lr,
            ema_rate="0.9999",
            log_interval=10**9,
            save_interval=-1,
            resume_checkpoint="",
        )
        # Its own update of the target takes weights that are flattened, as they are with float16 alone.
        pair = (list(target.parameters()), list(model.parameters()))
        loop._update_target_ema = lambda: update_ema(*pair, rate=0.95)
        return loop


def openai_unet(checkout: str) -> ModuleType:
    """Return the module ``cm.unet`` of a checkout, with attention of plain arithmetic: the fused one is a package of its own, for GPUs.

    What the package imports and what is compared here never calls has stand-ins.
    """
    for name in ("blobfile", "mpi4py", "piq", "torchvision", "torchvision.transforms"):
        sys.modules.setdefault(name, mock.MagicMock())
    sys.path.insert(0, checkout)
    from cm import unet

    vars(unet)["AttentionBlock"] = partial(unet.AttentionBlock, attention_type="default")
    return unet


def shape(text: str) -> tuple[int, ...]:
    """Return the shape that is meant by text such as 3x32x32."""
    return tuple(int(side) for side in text.split("x"))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for run in (sampling, training):
        command = commands.add_parser(run.__name__)
        command.set_defaults(run=run)
        command.add_argument("--shape", type=shape, default=(3, 32, 32), metavar="3x32x32")
        command.add_argument("--batch", type=int, default=32)
        command.add_argument("--rounds", type=int, default=9)
        command.add_argument("--seconds", type=float, default=0.5, help="of each way in a round (%(default)s)")
        command.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS))
    command.add_argument("checkout", metavar="CHECKOUT")
    command.add_argument("--width", type=int, default=32)
    args = parser.parse_args()
    print(f"torch {torch.__version__}, threads: {torch.get_num_threads()}")
    args.run(args)


if __name__ == "__main__":
    main()
