"""Every public function gives arrays of its input's dtype, on its input's device, and NumPy's numbers."""

import array_api_strict
import numpy as np
import pytest
from conftest import CHOSEN, strictest
from exact import dtypes, gaussian_denoiser

import cmcore as cm
from cmcore import distances, grids, losses, oracles, paths, recipes, sampling, solvers
from cmcore.grids import TimePair
from cmcore.parametrization import EDM, Boundary, ConsistencyFunction, Prediction, TrigFlow


class Net:
    def __call__(self, x, c_noise, c_end=None):
        return 0.3 * x + c_noise[:, None] if c_end is None else 0.3 * x + (c_noise * c_end)[:, None]

    def log_weight(self, c_noise, c_end=None):
        return 0.1 * c_noise


net = Net()


def results(x, t, differentiable=False, slow=True):
    """All public functions of arrays, by name, for x (3, 2) and t (3,); t lies in (0, 1)."""
    denoiser, f = gaussian_denoiser(0.1, 0.5), ConsistencyFunction(net, Boundary())
    out = {"karras": grids.karras(5, like=x), "karras_time": grids.karras_time(t, 5.0)}
    pairs = {"uniform_pair": grids.uniform_pair(t, 18.0), "ect_pair": grids.ect_pair(grids.lognormal_time(t), 2.0)}
    for name, pair in pairs.items():
        out |= {f"{name}.{field}": value for field, value in pair._asdict().items()}
    for path in (paths.VE(), paths.Trigonometric(), paths.Linear(), paths.VP(), paths.Cosine()):
        name = type(path).__name__
        out[f"{name}.perturb"] = path.perturb(x, x, t)
        for method in (path.noise, path.score, path.velocity):
            out[f"{name}.{method.__name__}"] = method(x, t, 0.4 * x)
        for method in (path.denoiser_from_noise, path.denoiser_from_score, path.denoiser_from_velocity):
            out[f"{name}.{method.__name__}"] = method(x, t, 0.4 * x)
    out |= {"diffusion": paths.VE().diffusion(t), "score_estimate": paths.VE().score_estimate(x, x, t)}
    for p in (Boundary(), EDM(), TrigFlow()):
        out |= {f"{type(p).__name__}.{field}": value for field, value in p.scalings(t)._asdict().items()}
        out[f"f of {type(p).__name__}"] = ConsistencyFunction(net, p)(x, t)
        out[f"f of {type(p).__name__} at a number"] = ConsistencyFunction(net, p)(x, 0.3)
    for step in (solvers.euler, solvers.heun):
        out[f"{step.__name__} between numbers"] = step(denoiser, x, 0.8, 0.5)
        out[f"{step.__name__} to 0"] = step(denoiser, x, 0.8, 0)
        out[step.__name__] = step(denoiser, x, t, 0.5 * t)
    for quantity in ("noise", "velocity", "denoiser"):
        out[f"f of a {quantity}"] = ConsistencyFunction(net, Prediction(paths.VP(), quantity))(x, t)
    for path in (paths.Linear(), paths.VP()):
        name = type(path).__name__
        out[f"distillation on {name}"] = losses.consistency(f, f, x, x, t, 0.5 * t, denoiser=denoiser, path=path)
        out[f"solve on {name}"] = solvers.solve(solvers.dpmpp_2m, denoiser, x, (0.9, 0.5, 0.0), path=path)
        out[f"multistep on {name}"] = sampling.multistep(f, x, (1.0, 0.5), lambda i: x, path=path)
    out["solve"] = solvers.solve(solvers.heun, denoiser, x, (3.0, 1.0, 0.0))
    for name, distance in recipes.DISTANCES.items():
        out[name] = distance(x, 0.5 * x)
    out["elementwise"] = distances.ElementwisePseudoHuber()(x, 0.5 * x)
    for name, weighting in recipes.WEIGHTINGS.items():
        out[f"weighting {name}"] = weighting(TimePair(t, 0.5 * t, 0.5 * t), 0.5)
    out["denoising"] = losses.denoising(f, x, x, t)
    out["training"] = losses.consistency(f, f, x, x, t, 0.5 * t)
    out["distillation"] = losses.consistency(f, f, x, x, 0.8, 0.5, denoiser=denoiser)
    out["onestep"] = sampling.onestep(f, x)
    out["multistep"] = sampling.multistep(f, x, (80.0, 0.8), lambda i: x)
    for law in (oracles.Gaussian(0.1, 0.5), oracles.Mixture([0.4, 0.6], [-1.0, 1.0], 0.5)):
        name = type(law).__name__
        out |= {f"{name}.score": law.score(x, t), f"{name}.denoiser": law.denoiser(x, t)}
        if slow or not isinstance(law, oracles.Mixture):
            out |= {f"{name}.flow": law.flow(x, 0.8, 0.5), f"{name}.consistency": law.consistency(x, 0.8)}
    for name in recipes.names() if slow else ():
        # imm: one group of three, from times far enough apart to leave digits.
        recipe = recipes.get(name, **({"particles": 3, "gap_exponent": 2.0} if name == "imm" else {}))
        scalars = {key: grids.karras(2, like=x)[0] * 0.0 + value for key, value in recipe.scalars(500, 1000).items()}
        nets = {"online": net, "target": net, "teacher": net}
        if differentiable or not recipe.needs_jvp:
            out[f"{name}.loss"] = recipe.loss(nets, x, x, dict.fromkeys(recipe.draws, t), scalars, {})
        out[f"{name}.sample"] = recipe.sample(net, x, recipe.times(2), lambda i: x)
    return out


X, T = np.linspace(-1, 1, 6).reshape(3, 2), np.array([0.2, 0.5, 0.8])
# What is left of the digits where the two points of a pair are near: the losses of ct and tcm lose most, 3e-5 in float32.
TOLERANCE = {"float32": 1e-4, "float64": 1e-11}


@dtypes
@pytest.mark.spares_tinygrad("float32")  # which it makes by default, so that float64 is the sharper
def test_dtype_and_numbers_are_those_of_the_input(lib, dtype):
    x, t = lib.asarray(X, dtype), lib.asarray(T, dtype)
    exact = results(X.astype(dtype).astype("float64"), T.astype(dtype).astype("float64"))
    # A mixture's flow and the recipes are a minute of small programs each in tinygrad; tests/test_oracles.py and tests/cross_backend have them.
    for name, value in results(x, t, lib.backend.trainable, slow=lib.name != "tinygrad").items():
        assert value.dtype == x.dtype, name
        assert value.shape == (3,) or not name.endswith(".loss"), name
        host = lib.to_numpy(value)
        assert np.isfinite(host).all(), name
        # NumPy has none of the losses that take a derivative; tests/cross_backend compares those.
        if name in exact:
            assert host.shape == exact[name].shape, name
            assert np.abs(host - exact[name]).max() <= TOLERANCE[dtype] * np.abs(exact[name]).max(), name


@pytest.mark.skipif("numpy" not in CHOSEN, reason="array-api-strict comes with NumPy")
@dtypes
def test_device_is_kept(dtype):
    # array-api-strict has devices that refuse to meet: a constant made on the default one would raise.
    device = array_api_strict.Device("device1")
    with strictest():
        x = array_api_strict.asarray(np.linspace(-1, 1, 6).reshape(3, 2).astype(dtype), device=device)
        t = array_api_strict.asarray(np.array([0.2, 0.5, 0.8], dtype), device=device)
        for name, value in results(x, t).items():
            assert value.device == device, name
            assert value.dtype == x.dtype, name


@pytest.mark.skipif("torch" not in CHOSEN, reason="torch does not take part")
def test_device_is_kept_by_tensors_without_values():
    import torch

    x, t = torch.zeros((3, 2), device="meta"), torch.zeros(3, device="meta")
    for name, value in results(x, t).items():
        assert value.device.type == "meta", name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.skipif("torch" not in CHOSEN, reason="torch does not take part")
def test_half_precision_is_kept(dtype):
    torch = cm.load("torch")
    x = torch.asarray([[0.5, -1.0]], dtype)
    f = ConsistencyFunction(net, Boundary())
    assert f(x, 0.3).dtype == x.dtype
    assert losses.consistency(f, f, x, x, 1.5, 1.0).dtype == x.dtype
    assert (f(x, 0.002) == x).all()
