"""Run the Array API standard's official test suite on what the tinygrad namespace claims.

    python -m tests.conformance.array_api_tests CHECKOUT [--max-examples N] [pytest options]

CHECKOUT (or the environment variable ARRAY_API_TESTS_DIR) is a clone of github.com/data-apis/array-api-tests at the tag
2026.02.26, with its submodule. The suite needs pytest-json-report and ndindex. With many examples it takes a while:
tinygrad compiles a program for each shape.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from cmcore_tinygrad import namespace

UNCLAIMED_DTYPES = "int8,int16,uint8,uint16,uint32,uint64,complex64,complex128"
WHOLE_MODULES = ("test_constants", "test_inspection_functions")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.array_api_tests", description=__doc__)
    parser.add_argument("checkout", nargs="?", default=os.environ.get("ARRAY_API_TESTS_DIR"))
    parser.add_argument("--max-examples", default="10")
    options, pytest_options = parser.parse_known_args(arguments)
    if options.checkout is None:
        print("Give the path of a checkout of array-api-tests, or set ARRAY_API_TESTS_DIR; nothing was run.")
        return 0
    checkout = Path(options.checkout).resolve()
    if not (checkout / "array_api_tests").is_dir() or not any((checkout / "array-api").iterdir()):
        print(f"{checkout} is not a checkout of array-api-tests with its submodule array-api.", file=sys.stderr)
        return 2
    if missing := [name for name in ("ndindex", "pytest_jsonreport") if find_spec(name) is None]:
        print(f"The suite needs {missing[0]}: pip install ndindex pytest-json-report.", file=sys.stderr)
        return 2
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {
        "ARRAY_API_TESTS_MODULE": "tests.conformance.tinygrad_boxed",
        "ARRAY_API_TESTS_VERSION": namespace.__array_api_version__,
        "ARRAY_API_TESTS_SKIP_DTYPES": UNCLAIMED_DTYPES,
        "ARRAY_API_TESTS_MAX_ARRAY_SIZE": "64",
        "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]),
    }
    command = [
        *(sys.executable, "-m", "pytest", "array_api_tests", "-p", "tests.conformance.array_api_tests"),
        *("--max-examples", options.max_examples, "--derandomize", "--hypothesis-disable-deadline"),
        *("--disable-data-dependent-shapes", "-p", "no:cacheprovider", "-q"),
        *pytest_options,
    ]
    return subprocess.run(command, cwd=checkout, env=environment).returncode


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of what is claimed (this module is a plugin of the run that `main` starts)."""
    from tests.conformance.tinygrad_boxed import OPERATORS

    claimed = {*namespace.CLAIMED, *OPERATORS, "__getitem__", "__array_namespace_info__"}
    kept = [item for item in items if _is_claimed(item, claimed)]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def _is_claimed(item: pytest.Item, claimed: set[str]) -> bool:
    """Tell whether a test is about claimed functions: its parameters say which, else its own name does."""
    module = item.module.__name__.rpartition(".")[2]
    if module in WHOLE_MODULES:
        return True
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if getattr(parameters.get("case"), "is_complex", False):
        return False
    for key in ("func_name", "iop_name"):
        if key in parameters:
            return parameters[key] in claimed
    if module == "test_has_names":
        extension = parameters["category"] in ("linalg", "fft") or parameters["category"].startswith("array_")
        return not extension and parameters["name"] in claimed
    if "stub" in parameters:
        return item.originalname != "test_array_method_signature" and parameters["stub"].__name__ in claimed
    if "ctx" in parameters:
        return parameters["ctx"].func_name in claimed
    if "func_data" in parameters:
        return parameters["func_data"][0] in claimed
    subject = item.originalname.removeprefix("test_")
    return f"__{subject}__" in claimed or any(subject == f or subject.startswith(f"{f}_") for f in claimed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
