"""The figures of docs/mathematics.md, drawn by cmcore's own functions on a law whose consistency function is known.

    python docs/site/figures.py            # into docs/figures/, where tests/docs/test_figures.py finds the same curves

The law is a mixture of two Gaussians on a line. Each curve has an id in the SVG, by which the test finds it again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray

import cmcore as cm

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "cmcore", "font.size": 9, "path.simplify": False})
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

PLACE = Path(__file__).parents[1] / "figures"
LAW = cm.oracles.Mixture(weights=[0.65, 0.35], means=[-1.0, 1.0], stds=0.25)
T_MIN, T_MAX = 0.002, 4.0
BLUE, ORANGE, GREY = "#3b5bdb", "#d9480f", "#868e96"


def curve(axis: Axes, name: str, x: NDArray, y: NDArray, **style: object) -> None:
    """Draw a curve that the test finds by its name."""
    (line,) = axis.plot(x, y, **style)
    line.set_gid(name)


def trajectories(axis: Axes) -> None:
    """The probability-flow ODE, `cmcore.oracles.Oracle.flow`: from points at t_max to the data."""
    times = np.linspace(T_MAX**0.5, T_MIN**0.5, 60) ** 2
    starts = np.linspace(-9.0, 9.0, 19)
    ends = LAW.flow(starts[:, None], T_MAX, T_MIN)
    for i, (start, end) in enumerate(zip(starts, ends[:, 0], strict=True)):
        way = LAW.flow(np.full((len(times), 1), start), T_MAX, times)[:, 0]
        curve(axis, f"trajectory-{i}", times, way, color=BLUE if end < 0 else ORANGE, linewidth=1)
    axis.set(xlabel="time t, the standard deviation of the noise", ylabel="x", xlim=(0, T_MAX), ylim=(-9.5, 9.5))


def consistency(axis: Axes) -> None:
    """The consistency function at several times: the identity at t_min, a staircase at large ones."""
    x = np.linspace(-6.0, 6.0, 241)
    for t, colour in ((T_MIN, GREY), (0.5, "#74c0fc"), (1.0, "#4dabf7"), (2.0, BLUE), (T_MAX, "#1c2f8a")):
        curve(
            axis,
            f"f-{t}",
            x,
            LAW.consistency(x[:, None], t, T_MIN)[:, 0],
            color=colour,
            linewidth=1.3,
            label=f"t = {t:g}",
        )
    axis.set(xlabel="x", ylabel="f(x, t)", xlim=(-6, 6), ylim=(-2, 2))
    axis.legend(frameon=False, loc="upper left")


def targets(axis: Axes) -> None:
    """One step from t to r: where distillation goes, and where training may go, whose mean it is."""
    x, t, r = np.array([[0.3]]), 1.2, 0.7
    times = np.linspace(r, t, 40)
    curve(
        axis,
        "way",
        times,
        LAW.flow(np.full((40, 1), x[0, 0]), t, times)[:, 0],
        color=BLUE,
        linewidth=2,
        label="the trajectory",
    )
    step = cm.solvers.heun(LAW.denoiser, x, t, r)
    curve(
        axis,
        "heun",
        np.array([t, r]),
        np.array([x[0, 0], step[0, 0]]),
        color="black",
        marker="o",
        linewidth=1,
        label="a Heun step (CD)",
    )
    # Data that x may be of, weighted as they are likely: the posterior is a mixture as well.
    rng = np.random.default_rng(0)
    x0 = LAW.sample(rng.standard_normal((4000, 1)), rng.random((4000, 1)))
    likely = np.exp(-((x - x0) ** 2) / (2 * t**2))[:, 0]
    chosen = x0[rng.choice(len(x0), 14, p=likely / likely.sum())]
    for i, z in enumerate(((x - chosen) / t)[:, 0]):
        end = chosen[i, 0] + r * z
        curve(
            axis,
            f"pair-{i}",
            np.array([t, r]),
            np.array([x[0, 0], end]),
            color=ORANGE,
            alpha=0.6,
            linewidth=0.8,
            label="the same data and noise (CT)" if i == 0 else None,
        )
    axis.set(xlabel="t", ylabel="x", xlim=(r - 0.05, t + 0.05), ylim=(-0.85, 0.85))
    axis.legend(frameon=False, loc="lower left")


def curricula(axis: Axes) -> None:
    """The schedules of consistency training, `cmcore.grids.Progressive`."""
    curriculum, steps = cm.grids.Progressive(), np.arange(0, 100_001, 250)
    n, mu = (np.array([curriculum(int(k), 100_000)[name] for k in steps]) for name in ("n", "target_decay"))
    curve(axis, "n", steps / 1000, n, color=BLUE, linewidth=1.3)
    axis.set(xlabel="step k, in thousands of K = 100,000", xlim=(0, 100), ylim=(0, 160))
    axis.set_ylabel("N(k), points of the grid", color=BLUE)
    other = axis.twinx()
    curve(other, "mu", steps / 1000, mu, color=ORANGE, linewidth=1.3)
    other.set(ylim=(0.9, 1.0))
    other.set_ylabel("\N{GREEK SMALL LETTER MU}(k), decay of the target", color=ORANGE)


FIGURES: dict[str, Callable[[Axes], None]] = {
    "trajectories": trajectories,
    "consistency": consistency,
    "targets": targets,
    "curricula": curricula,
}


def draw(folder: Path) -> None:
    """Write each figure into the folder as an SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure_of in FIGURES.items():
        figure, axis = plt.subplots(figsize=(5.6, 3.2))
        # Not by the size of letters, which differs from machine to machine.
        figure.subplots_adjust(left=0.11, right=0.89, bottom=0.15, top=0.97)
        figure_of(axis)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
        plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else PLACE)
