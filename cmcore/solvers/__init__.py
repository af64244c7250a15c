"""Numerical solvers of the probability-flow ODE of the path ``x_t = x_0 + t z``: ``dx/dt = (x - D(x, t)) / t``.

- One-step methods, plain functions ``step(denoiser, x, t, r)``: `euler`, `heun`, `dpm2`, `dpmpp_2s`. They take every
  sample from its own time t to its own time r (usually r < t; r > t runs the ODE backwards, towards noise). Times are
  numbers, arrays () or arrays (B,).
- Methods that remember earlier steps: `dpmpp_2m`, `lms`; and stochastic ones, which are given their noise: `Ancestral`,
  `Churn` of any method, `DPMppSDE`, `DPMppMSDE`. They are `Solver` objects, whose times are numbers.

`solve` follows the ODE from time to time by any of them, on other paths too; a step by itself is
``solve(step, denoiser, x, (t, r), path=path)``. The state is (B, ...); results have its shape, dtype and device.
"""

from cmcore.solvers.loop import Memory, Solver, solve, trajectory
from cmcore.solvers.multistep import LMS, DPMpp2M, dpmpp_2m, lms
from cmcore.solvers.onestep import Step, dpm2, dpmpp_2s, euler, heun
from cmcore.solvers.reverse_sde import DPMppMSDE, DPMppSDE
from cmcore.solvers.stochastic import Ancestral, Churn, Noise

__all__ = [
    "LMS",
    "Ancestral",
    "Churn",
    "DPMpp2M",
    "DPMppMSDE",
    "DPMppSDE",
    "Memory",
    "Noise",
    "Solver",
    "Step",
    "dpm2",
    "dpmpp_2m",
    "dpmpp_2s",
    "euler",
    "heun",
    "lms",
    "solve",
    "trajectory",
]
