"""Choosing backends: names, defaults, scopes, what is missing, and a third party's."""

import importlib.abc
import importlib.util
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from conftest import CHOSEN, jax_x64, write_distribution

import cmcore as cm
from cmcore.backend import registry as chooser
from cmcore.testing import check_placement


@pytest.fixture(autouse=True)
def _own_default(monkeypatch):
    monkeypatch.setattr(chooser, "_process_default", None)


def run(code, path=()):
    """Run Python code in a process of its own and return it completed."""
    setup = f"import sys; sys.path[:0] = {[str(p) for p in path]!r}\n"
    return subprocess.run(
        [sys.executable, "-c", setup + textwrap.dedent(code)], capture_output=True, text=True, timeout=120, check=False
    )


def test_ours_are_known_in_order_of_preference():
    ours = ("torch", "jax", "tinygrad", "numpy")
    assert cm.backend.names()[:4] == ours
    assert [n for n in cm.available() if n in ours] == [n for n in ours if importlib.util.find_spec(n)]


def test_use_sets_the_default_and_says_nothing(capsys):
    assert cm.use("numpy").name == "numpy"
    assert cm.backend.default().name == "numpy"
    assert cm.use("numpy", device="cpu").device == "cpu"
    assert capsys.readouterr() == ("", "")


def test_use_without_a_name_takes_the_first_and_says_so(capsys):
    chosen = cm.use()
    assert chosen.name == cm.available()[0]
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"cmcore: using {chosen.name} {chosen.version()} on {chosen.device}\n"


def test_the_default_without_use_is_the_first_available():
    assert cm.backend.default().name == cm.available()[0]


def test_using_is_a_scope(backend):
    cm.use("numpy")
    with cm.using(backend.name) as chosen:
        assert chosen is cm.backend.default()
        assert chosen.name == backend.name
        assert backend.owns(cm.grids.karras(3))
        with cm.using("numpy"):
            assert cm.backend.default().name == "numpy"
        assert cm.backend.default().name == backend.name
    assert cm.backend.default().name == "numpy"


def test_using_ends_with_an_exception():
    with pytest.raises(KeyError), cm.using("numpy"):
        raise KeyError
    assert chooser._scoped_default.get() is None


@pytest.mark.skipif("torch" not in CHOSEN, reason="needs two backends")
def test_threads_do_not_see_each_others_scopes():
    cm.use("numpy")
    inside, done, seen = threading.Event(), threading.Event(), {}

    def other():
        inside.wait(10)
        seen["before"] = cm.backend.default().name
        with cm.using("numpy"):
            seen["within"] = cm.backend.default().name
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with cm.using("torch"):
        inside.set()
        done.wait(10)
        seen["here"] = cm.backend.default().name
    thread.join()
    assert seen == {"before": "numpy", "within": "numpy", "here": "torch"}


def test_an_unknown_name_is_a_sentence():
    for call in (cm.load, cm.use, lambda name: cm.using(name).__enter__()):
        with pytest.raises(
            ValueError, match=r"no backend named 'tensorflow'; the known ones are torch, jax, tinygrad, numpy"
        ):
            call("tensorflow")


def test_an_unknown_device_is_a_sentence(backend):
    with pytest.raises(ValueError, match="warp"):
        cm.use(backend.name, device="warp")
    assert chooser._process_default is None


class Blocker(importlib.abc.MetaPathFinder):
    def __init__(self, *names):
        self.names = names

    def find_spec(self, fullname, path, target=None):
        if fullname.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def test_a_missing_framework_is_a_sentence():
    done = run(
        """
        import importlib.util
        real = importlib.util.find_spec
        for name in ("torch", "jax"):
            sys.modules[name] = None
        import cmcore.backend.registry as chooser
        chooser.find_spec = lambda name: None if name in ("torch", "jax") else real(name)
        import cmcore as cm
        assert not {"torch", "jax"} & set(cm.available())
        assert {"torch", "jax"} <= set(cm.backend.names())
        for name in ("torch", "jax"):
            try:
                cm.use(name)
            except cm.Error as error:
                print(error)
        """
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert (
        first == "The backend 'torch' needs the package 'torch', which is not installed: pip install \"cmcore[torch]\"."
    )
    assert second.startswith("The backend 'jax' needs the package 'jax")


def test_arrays_bring_their_backend(backend):
    x = backend.asarray([1.0, 2.0])
    assert cm.backend.of(x).name == backend.name
    assert cm.namespace(x) is cm.namespace(x, x, 1.0, None)
    assert np.array_equal(backend.to_numpy(cm.stop_gradient(x)), [1.0, 2.0])


def test_a_derivative_is_taken_by_the_backend_of_the_array(trainable):
    x, v = trainable.asarray([1.0, 2.0]), trainable.asarray([1.0, -1.0])
    value, along = cm.jvp(lambda a, b: a * b, [x, x], [v, 0 * v])
    assert trainable.owns(along)
    np.testing.assert_allclose(trainable.to_numpy(value), [1.0, 4.0])
    np.testing.assert_allclose(trainable.to_numpy(along), [1.0, -2.0])


def test_a_derivative_without_gradients_is_a_sentence():
    with pytest.raises(cm.Error, match="NumPy has no gradients"):
        cm.jvp(lambda a: a, (np.ones(1),), (np.ones(1),))


def test_no_array_or_arrays_of_two_frameworks_are_a_sentence():
    with pytest.raises(TypeError, match=r"got none"):
        cm.namespace()
    with pytest.raises(TypeError, match=r"got builtins.str|type builtins.str"):
        cm.namespace("x")
    with pytest.raises(
        TypeError, match=r"No backend owns arrays of type builtins.object; expected an array of one of: torch"
    ):
        cm.backend.of(object())
    if "torch" in CHOSEN:
        with pytest.raises(TypeError, match=r"one framework, got numpy.ndarray, torch.Tensor\."):
            cm.namespace(np.ones(1), cm.load("torch").asarray([1.0]))


def test_asking_whose_array_it_is_imports_nothing():
    done = run(
        """
        import numpy as np, cmcore as cm
        cm.namespace(np.ones(1)); print(cm.backend.of(np.ones(1)).name)
        try:
            cm.backend.of(object())
        except TypeError:
            pass
        assert not {"torch", "jax", "tinygrad"} & set(sys.modules)
        """
    )
    assert (done.returncode, done.stdout) == (0, "numpy\n"), done.stderr


def test_a_backend_lacking_members_is_refused():
    class Half:
        name = "half"
        device = "cpu"

    with pytest.raises(TypeError, match=r"lacks these members of cmcore.Backend: asarray, compile.*xp\.$"):
        cm.register(Half())
    assert "half" not in cm.backend.names()


def test_a_backend_of_before_is_told_what_it_lacks():
    class Lacking:
        def __getattr__(self, member):
            if member in ("programs", "compile_from", "float_types"):
                raise AttributeError(member)
            return getattr(cm.load("numpy"), member)

    with pytest.raises(
        TypeError, match=r"lacks these members of cmcore.Backend: compile_from, float_types, programs\.$"
    ):
        cm.register(Lacking())


def test_what_may_train_is_what_is_not_known_to_lack_gradients():
    cm.load("numpy")
    assert cm.backend.may_train()[:3] == ("torch", "jax", "tinygrad")
    assert "numpy" not in cm.backend.may_train()


@pytest.mark.skipif("jax" not in CHOSEN, reason="needs JAX")
def test_jax_has_float64_where_its_64_bit_mode_is_on():
    assert "float64" not in cm.load("jax").float_types()
    with jax_x64():
        assert "float64" in cm.load("jax").float_types()


THIRD_PARTY = """
import array_api_strict, numpy
from cmcore_numpy import NumpyBackend, NumpyStream

class StrictStream(NumpyStream):
    def normal(self, *args):
        return array_api_strict.asarray(super().normal(*args))
    def uniform(self, *args):
        return array_api_strict.asarray(super().uniform(*args))

class StrictBackend(NumpyBackend):
    def owns(self, x):
        return isinstance(x, type(array_api_strict.ones(1)))
    def asarray(self, host, dtype=None):
        return array_api_strict.asarray(numpy.asarray(host, dtype))
    def to_numpy(self, x):
        return numpy.array(x)
    def stream(self, seed, index=0):
        return StrictStream(super().stream(seed, index).generator)

BACKEND = StrictBackend(name="array_api_strict", xp=array_api_strict)
"""


@pytest.fixture
def third_party(tmp_path):
    """A distribution of somebody else's with a backend for array-api-strict."""
    points = "[cmcore.backends]\narray_api_strict = cmcore_strict:BACKEND\n"
    write_distribution(tmp_path, "strict_for_cmcore", points, "cmcore_strict", THIRD_PARTY)
    return tmp_path


def test_a_third_partys_backend_needs_no_change_of_ours(third_party):
    done = run(
        """
        import cmcore as cm
        assert cm.backend.names()[-1] == cm.available()[-1] == "array_api_strict"
        assert not {"cmcore_strict", "array_api_strict"} & set(sys.modules)
        theirs = cm.use("array_api_strict")
        x = theirs.asarray([[0.5, 1.0]])
        f = cm.ConsistencyFunction(lambda y, c_noise: 0.5 * y, cm.parametrization.Boundary())
        assert theirs.xp.all(f(x, 0.002) == x)
        assert theirs.owns(cm.grids.karras(5))
        from cmcore import testing
        for check in testing.CHECKS:
            if not {"network", "networks", "program"} & set(check.__name__.split("_")):
                check(theirs)
        print(cm.backend.of(x).name, cm.backend.default().name)
        """,
        [third_party],
    )
    assert (done.returncode, done.stdout) == (0, "array_api_strict array_api_strict\n"), done.stderr


def test_a_backend_that_lacks_a_package_of_its_extra_is_not_available(third_party):
    described = third_party / "strict_for_cmcore-1.0.dist-info" / "METADATA"
    for requirements, there in (
        ("array-api-strict >=2; extra == 'array-api-strict'", True),  # by its metadata, had it no module of that name
        ("pytest-xdist; extra == 'array-api-strict'", True),
        ("no.such-package>=2 ; extra == 'array-api-strict'", False),
        ("no-such-package>=2 ; extra == 'other'", True),
    ):
        described.write_text(
            f"Metadata-Version: 2.1\nName: strict-for-cmcore\nVersion: 1.0\nRequires-Dist: {requirements}\n"
        )
        done = run("import cmcore as cm; print('array_api_strict' in cm.available())", [third_party])
        assert (done.returncode, done.stdout) == (0, f"{there}\n"), (requirements, done.stderr)


def test_what_a_third_partys_backend_lacks_is_not_looked_for_in_our_extras(tmp_path):
    points = "[cmcore.backends]\nabacus = cmcore_abacus:BACKEND\n"
    write_distribution(tmp_path, "abacus_for_cmcore", points, "cmcore_abacus", "import abacus")
    code = """
        import cmcore as cm
        try:
            cm.load("abacus")
        except cm.Error as error:
            print(error)
        """
    lacking = "The backend 'abacus' needs the package 'abacus', which is not installed: pip install "
    assert run(code, [tmp_path]).stdout == lacking + "abacus.\n"
    described = tmp_path / "abacus_for_cmcore-1.0.dist-info" / "METADATA"
    described.write_text("Metadata-Version: 2.1\nName: abacus-for-cmcore\nVersion: 1.0\nProvides-Extra: abacus\n")
    assert run(code, [tmp_path]).stdout == lacking + '"abacus-for-cmcore[abacus]".\n'


def test_a_registered_backend_replaces_the_one_of_its_name():
    import dataclasses

    numpy = cm.load("numpy")
    twin = dataclasses.replace(numpy)
    cm.register(twin)
    try:
        assert cm.load("numpy") is twin
        check_placement(twin)
        assert cm.backend.of(np.ones(1)) is twin
    finally:
        cm.register(numpy)
    assert cm.backend.of(np.ones(1)) is numpy
