"""``pytest examples --backend torch`` runs the examples with that backend; without it, with every one installed."""

from importlib.util import find_spec

TRAINABLE = ("torch", "jax", "tinygrad")


def pytest_addoption(parser):
    parser.addoption("--backend", choices=TRAINABLE, help="run the examples with this backend only")


def pytest_generate_tests(metafunc):
    if "backend" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--backend")
        metafunc.parametrize("backend", [asked] if asked else [name for name in TRAINABLE if find_spec(name)])
