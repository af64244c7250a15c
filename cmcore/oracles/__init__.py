"""Closed forms: distributions of the data for which score, denoiser and, mostly, the exact flow map are known.

An oracle answers for the path ``x_t = x_0 + t z`` of the paper, z standard normal:

- ``score(x, t)``, ``grad_x log p_t(x)``;
- ``denoiser(x, t)``, ``E[x_0 | x_t = x]``;
- ``flow(x, t, s)``, where the probability-flow ODE takes x from time t to time s, in either direction;
- ``consistency(x, t, t_min)``, which is ``flow(x, t, t_min)``;
- ``sample(...)``, data from random numbers that are passed in.

x is a batch (B, ...), times are numbers or arrays () or (B,); results have x's shape, dtype and device, and everything
can be traced, compiled and differentiated. Parameters are given as numbers, sequences or arrays of any framework and
are kept in float64 on the host. `Along` carries an oracle over to any other path.
"""

from cmcore.oracles.empirical import Empirical
from cmcore.oracles.gaussian import Gaussian
from cmcore.oracles.mixture import Mixture
from cmcore.oracles.oracle import Oracle
from cmcore.oracles.transformed import Along, Product, Rotated

__all__ = ["Along", "Empirical", "Gaussian", "Mixture", "Oracle", "Product", "Rotated"]
