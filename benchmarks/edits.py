"""What a model makes of held-out pictures when it edits them: rows of what is known and of edits from it, as one picture.

    python benchmarks/edits.py fashion edited.png --data fashion-mnist
    python benchmarks/edits.py RUN edited.png --data emoji --held-out 0.1

The pictures are ``--n`` of those that were kept from training. A model with classes is told the one that the classifier which comes
with the package finds in each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import cmcore as cm
from cmcore import shipped
from cmcore.editing import Editor
from cmcore.editing.known import downsampled
from cmcore.editing.transforms import LUMA
from cmcore.features import load_classifier
from cmcore.run import data as datasets
from cmcore.run.pictures import rows, save_png


def edits(model: cm.Model, pictures: np.ndarray, labels: np.ndarray | None, factor: int, args: argparse.Namespace):
    """Return pairs of a caption and pictures (N, C, H, W) in [-1, 1]."""
    editor = Editor(model, cm.use(args.backend))
    channels, height, width = model.data.shape
    told = [{} if labels is None else {"labels": [int(labels[i])]} for i in range(len(pictures))]

    def each(edit):
        return np.concatenate([edit(p, seed=args.seed + i, **told[i]) for i, p in enumerate(pictures)])

    below = np.broadcast_to(np.arange(height)[:, None] >= height // 2, (height, width))
    hidden = np.where(below, 0.0, pictures).astype(np.float32)
    small = np.concatenate([downsampled(p[None], factor) for p in pictures])
    found = [
        ("held out", pictures),
        ("the lower half hidden", hidden),
        ("inpainted", each(lambda p, **how: editor.inpaint(p, below, steps=args.steps, **how))),
        (f"{factor} x {factor} pixels to a patch", small.repeat(factor, 2).repeat(factor, 3)),
        (
            "upscaled",
            each(lambda p, **how: editor.upscale(downsampled(p[None], factor)[0], factor, steps=args.steps, **how)),
        ),
    ]
    if channels == 3:
        grey = np.tensordot(LUMA, pictures, axes=(0, 1))[:, None].astype(np.float32)
        found += [
            ("grey", grey.repeat(3, 1)),
            ("colourised", each(lambda p, **how: editor.colourise(p, steps=args.steps, **how))),
        ]
    return [*found, ("variations", each(lambda p, **how: editor.variations(p, **how)))]


def classes_of(model: cm.Model, pictures: np.ndarray, args: argparse.Namespace) -> np.ndarray | None:
    """Return the class of each picture, or None for a model without classes."""
    if not model.data.classes:
        return None
    path = shipped.classifier(args.data)
    assert path is not None
    return load_classifier(path, cm.use(args.backend)).labels(pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--held-out", help="as the model was trained with")
    parser.add_argument("--n", type=int, default=12)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--factor", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="torch")
    args = parser.parse_args()
    model, data = cm.load_model(args.model), datasets.load(args.data, held_out=args.held_out)
    assert data.kept_out is not None
    chosen = np.arange(args.skip, args.skip + args.n)
    pictures = data.kept_out.take(chosen)
    save_png(
        rows(edits(model, pictures, classes_of(model, pictures, args), args.factor, args), columns=args.n), args.out
    )


if __name__ == "__main__":
    main()
