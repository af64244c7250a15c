"""An error names the argument at fault, by the name that the caller knows it under."""

import numpy as np
import pytest

from cmcore import distances, grids, paths, sampling, solvers
from cmcore.parametrization import Boundary, TrigFlow

X, SHORT, WHOLE = np.ones((3, 2)), np.ones((2, 2)), np.array([1])


def denoiser(x, t):
    return 0.5 * x


def f(x, t):
    return 0.5 * x


@pytest.mark.parametrize(
    ("call", "start"),
    [
        (lambda: solvers.euler(denoiser, X, -1.0, 0.5), "t must"),
        (lambda: solvers.euler(denoiser, X, 1.0, -0.5), "r must"),
        (lambda: solvers.heun(denoiser, X, -1.0, 0.5), "t must"),
        (lambda: solvers.heun(denoiser, X, 1.0, -0.5), "r must"),
        (lambda: solvers.euler(lambda x, t: SHORT, X, 1.0, 0.5), "x and the denoiser's value must"),
        (lambda: paths.VE().perturb(WHOLE, X, 1.0), "x0 must"),
        (lambda: paths.VE().perturb(X, SHORT, 1.0), "x0 and z must"),
        (lambda: paths.VE().noise(WHOLE, 1.0, X), "x must"),
        (lambda: paths.VE().noise(X, 1.0, SHORT), "x and the other quantity must"),
        (lambda: sampling.onestep(f, WHOLE), "z must"),
        (lambda: sampling.multistep(f, WHOLE, (80.0,), lambda i: X), "z must"),
        (lambda: sampling.multistep(f, X, (80.0, 1.0), lambda i: SHORT), "The samples and the noise must"),
        (lambda: distances.l1(X, SHORT), "The two batches must"),
        (lambda: Boundary().scalings(WHOLE), "t must"),
        (lambda: TrigFlow().scalings(WHOLE), "t must"),
        (lambda: grids.karras_time(WHOLE, 18), "index must"),
        (lambda: grids.uniform_pair(WHOLE, 18), "u must"),
        (lambda: grids.lognormal_time(WHOLE), "normal must"),
        (lambda: grids.ect_pair(WHOLE, 0.0), "t must"),
    ],
)
def test_an_error_names_its_argument(call, start):
    with pytest.raises((TypeError, ValueError), match=f"^{start} "):
        call()
