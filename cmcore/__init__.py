"""Consistency models written once against the Python Array API, run by PyTorch, JAX, tinygrad and NumPy.

    import cmcore as cm

    cm.use("torch")                                  # the default for calls that take no array
    f = cm.ConsistencyFunction(net, cm.parametrization.Boundary(sigma_data=0.5))
    x = cm.sampling.onestep(f, z)                    # one network evaluation

See `cmcore.recipes` for the methods, `cmcore.backend` for what a framework supplies.
"""

from cmcore import (
    backend,
    distances,
    editing,
    ema,
    flow_maps,
    grids,
    losses,
    metrics,
    model,
    networks,
    noise_levels,
    oracles,
    parametrization,
    paths,
    posterior,
    recipes,
    sampling,
    search,
    solvers,
    tangents,
    weightings,
)
from cmcore._arrays import per_sample
from cmcore.backend import (
    available,
    jvp,
    load,
    namespace,
    register,
    stop_gradient,
    use,
    using,
)
from cmcore.errors import Error
from cmcore.interchange import export_model, import_model
from cmcore.model import Model, load_model
from cmcore.optimization import Optimizer
from cmcore.parametrization import ConsistencyFunction
from cmcore.training import Trainer, TrainSpec

__version__ = "0.1.0"

__all__ = [
    "ConsistencyFunction",
    "Error",
    "Model",
    "Optimizer",
    "TrainSpec",
    "Trainer",
    "available",
    "backend",
    "distances",
    "editing",
    "ema",
    "export_model",
    "flow_maps",
    "grids",
    "import_model",
    "jvp",
    "load",
    "load_model",
    "losses",
    "metrics",
    "model",
    "namespace",
    "networks",
    "noise_levels",
    "oracles",
    "parametrization",
    "paths",
    "per_sample",
    "posterior",
    "recipes",
    "register",
    "sampling",
    "search",
    "solvers",
    "stop_gradient",
    "tangents",
    "use",
    "using",
    "weightings",
]
