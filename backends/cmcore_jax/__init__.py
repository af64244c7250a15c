"""JAX for cmcore: placement, streams, transformations, equinox networks and a jitted train step with optax.

Importing this package initialises no device and leaves ``jax.config`` alone; float64 works where the caller has
turned x64 on (``jax.enable_x64``), and asking for it elsewhere is an error rather than a silent float32.
"""

from cmcore_jax.backend import BACKEND, JaxBackend

__all__ = ["BACKEND", "JaxBackend"]
