"""``import cmcore`` loads no framework and changes nothing; each part of it stands alone."""

import json
import pkgutil
import subprocess
import sys
import textwrap

import pytest
from conftest import CHOSEN

import cmcore


def run(code, *options, cwd=None):
    command = [sys.executable, *options, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_numpy_and_array_api_compat_and_nothing_else():
    loaded = run(
        """
        import sys
        before = set(sys.modules)
        import cmcore
        ours = {name.partition(".")[0] for name in set(sys.modules) - before}
        print(*sorted(ours - set(sys.stdlib_module_names)))
        """
    ).split()
    # NumPy's own helpers have names of their own.
    assert [name for name in loaded if not name.startswith(("_", "numpy"))] == ["array_api_compat", "cmcore"]


STATE = """
import json, locale, logging, os, random, signal, sys, threading, warnings
import numpy as np
FRAMEWORK

def state():
    found = {
        "errstate": np.geterr(),
        "numpy random": str(np.random.get_state()),
        "random": str(random.getstate()),
        "print options": str(np.get_printoptions()),
        "handlers": str(logging.getLogger().handlers),
        "level": logging.getLogger().level,
        "warnings": str(warnings.filters),
        "environment": dict(os.environ),
        "excepthook": str(sys.excepthook),
        "meta path": str(sys.meta_path),
        "locale": str(locale.getlocale()),
        "signal": str(signal.getsignal(signal.SIGINT)),
        "threads": threading.active_count(),
        "directory": os.getcwd(),
        "files": sorted(os.listdir(".")),
        "recursion": sys.getrecursionlimit(),
    }
    found.update(framework_state())
    return found
"""

FRAMEWORKS = {
    "numpy": "def framework_state(): return {}",
    "torch": """
import torch
def framework_state():
    return {
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "gradients": torch.is_grad_enabled(),
        "generator": str(torch.random.get_rng_state().sum()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cuda": torch.cuda.is_initialized(),
        "precision": torch.get_float32_matmul_precision(),
        "threads of torch": torch.get_num_threads(),
    }
""",
    "jax": """
import jax
def framework_state():
    from jax._src import xla_bridge
    return {
        "x64": jax.config.jax_enable_x64,
        "promotion": jax.config.jax_numpy_dtype_promotion,
        "precision": str(jax.config.jax_default_matmul_precision),
        "debug": jax.config.jax_debug_nans,
        "backends": str(xla_bridge._backends),
    }
""",
    "tinygrad": """
import tinygrad
def framework_state():
    from tinygrad.helpers import ContextVar
    return {
        "context": {name: variable.value for name, variable in ContextVar._cache.items()},
        "seed": tinygrad.Tensor._seed,
        "float": str(tinygrad.dtypes.default_float),
        "opened": str(sorted(tinygrad.Device._opened_devices)),
    }
""",
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_import_changes_no_global_state(framework, tmp_path):
    if framework not in CHOSEN:
        pytest.skip(f"{framework} does not take part")
    code = STATE.replace("FRAMEWORK", FRAMEWORKS[framework])
    code += "before = state()\nimport cmcore\nafter = state()\n"
    code += "print(json.dumps([k for k in before if before[k] != after[k]]))"
    assert json.loads(run(code, cwd=tmp_path)) == []


@pytest.mark.parametrize("framework", ["torch", "jax", "tinygrad"])
def test_loading_a_backend_changes_no_global_state(framework, tmp_path):
    if framework not in CHOSEN:
        pytest.skip(f"{framework} does not take part")
    code = STATE.replace("FRAMEWORK", FRAMEWORKS[framework])
    code += f"import cmcore\nbefore = state()\ncmcore.load({framework!r})\nafter = state()\n"
    code += "ignored = {'warnings', 'meta path', 'threads', 'environment'}\n"  # the framework's own imports' doing
    code += "print(json.dumps([k for k in before if before[k] != after[k] and k not in ignored]))"
    assert json.loads(run(code, cwd=tmp_path)) == []


def test_import_warns_of_nothing():
    run("import cmcore", "-W", "error")


def test_everything_that_is_named_is_there():
    assert all(hasattr(cmcore, name) for name in cmcore.__all__)
    assert cmcore.__all__ == sorted(cmcore.__all__)


@pytest.mark.parametrize(
    "module", [m.name for m in pkgutil.iter_modules(cmcore.__path__) if m.name not in ("run", "__main__")]
)
def test_each_module_can_be_imported_first(module):
    run(f"import cmcore.{module}")


def test_the_core_names_no_framework_in_an_import():
    import ast
    import pathlib

    # safetensors is read and written inside functions only: the first test.
    allowed = {"cmcore", "numpy", "array_api_compat", "safetensors", *sys.stdlib_module_names}
    for path in pathlib.Path(cmcore.__path__[0]).rglob("*.py"):
        if {"run", "__main__.py"} & {*path.relative_to(cmcore.__path__[0]).parts}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            found = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            found += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert {name.partition(".")[0] for name in found} <= allowed, path
