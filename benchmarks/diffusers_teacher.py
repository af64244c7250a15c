"""A teacher trained by diffusers' own code on digits, imported and distilled into one step by ``cd``.

    python benchmarks/diffusers_teacher.py --out FOLDER [--device cuda]

Needs torch, diffusers and scikit-learn. Trains a noise predictor of DDPM's kind (UNet2DModel, DDPMScheduler) by diffusers' usual loop,
imports the folder with ``cmcore import``, trains the student - a perceptron from random weights: a network that predicts noise makes
the data in one step only as the small difference of large numbers - and evaluates both: the teacher's 18 steps of the ODE and the
student's one. The last line is the ratio of the Frechet distances.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from cmcore.run.cli import main as cmcore
from cmcore.run.data import load as load_data

OPTIONS = ("weighting=inverse_gap", "lr=2e-3", "decay=true", "warmup=140", "ema=0.999", "t_max=80")
"""As in the demonstration; the teacher's own path reaches further, where nothing is left to learn."""


def train_teacher(folder: Path, steps: int, batch: int = 64) -> None:
    """Train by the loop of diffusers' tutorial and save the pipeline."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    data = load_data("digits")
    net = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    scheduler = DDPMScheduler(num_train_timesteps=1000)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    average = {name: p.detach().clone() for name, p in net.state_dict().items()}
    start = time.monotonic()
    for step in range(steps):
        x = torch.from_numpy(np.asarray(data.batch(0, step, batch)[0]))
        noise, t = torch.randn_like(x), torch.randint(0, 1000, (batch,))
        predicted = net(scheduler.add_noise(x, noise, t), t).sample
        loss = torch.nn.functional.mse_loss(predicted, noise)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - step / steps)
        optimizer.step()
        for name, p in net.state_dict().items():
            average[name].lerp_(p, 1 / min(step + 1, 200))
        if step % 200 == 0:
            print(f"step {step}: loss {loss.item():.4f}, {time.monotonic() - start:.0f} s", flush=True)
    net.load_state_dict(average)
    DDPMPipeline(net, scheduler).save_pretrained(folder)


def frechet(run: Path, steps: int) -> float:
    """Return what ``cmcore eval`` says of a run at so many steps."""
    if cmcore(
        [
            "eval",
            str(run),
            "--data",
            "digits",
            "--steps",
            str(steps),
            "--n",
            "2000",
            "--out",
            str(run / f"{steps}.json"),
        ]
    ):
        raise SystemExit("cmcore eval failed")
    return next(row["frechet"] for row in json.loads((run / f"{steps}.json").read_text())["rows"] if row["nfe"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--student-steps", type=int, default=14_000)
    parser.add_argument("--device", default="cpu", help="of the student")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pipeline, teacher, student = (args.out / name for name in ("pipeline", "teacher", "student"))
    if not pipeline.exists():
        train_teacher(pipeline, args.steps)
    if not teacher.exists() and cmcore(["import", str(pipeline), "--out", str(teacher)]):
        raise SystemExit("cmcore import failed")
    distil = ["train", "--data", "digits", "--recipe", "cd", "--teacher", str(teacher), "--out", str(student)]
    network = ["--network", "mlp", "--width", "256", "--blocks", "3", "--device", args.device]
    steps = ["--steps", str(args.student_steps), "--batch", "128", "--compile"]
    options = [f"--set={option}" for option in OPTIONS]
    if not student.exists() and cmcore([*distil, *network, *steps, *options]):
        raise SystemExit("cmcore train failed")
    first, last = frechet(teacher, 18), frechet(student, 1)
    print(f"teacher, 18 steps: {first:.3f}; student, one step: {last:.3f}; ratio {last / first:.2f}")


if __name__ == "__main__":
    main()
