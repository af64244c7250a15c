"""What a trainer is given: mistakes are sentences before anything is built."""

import numpy as np
import pytest
from conftest import TRAINABLE

import cmcore as cm


def test_a_spec_says_what_it_cannot_be():
    for wrong, sentence in (
        ({"loss": None}, "The loss must be a function of nets"),
        ({"loss": max, "optimizer": "adam"}, "The optimizer must be an Optimizer"),
        ({"loss": max, "seed": "a"}, "seed must be a whole number"),
    ):
        with pytest.raises(TypeError, match=sentence):
            cm.TrainSpec(**wrong)


def test_a_trainer_says_what_it_is_given(trainable):
    net = trainable.network(cm.networks.ResidualMLP((2,), width=4, blocks=1, features=2))
    with pytest.raises(TypeError, match=r"given a cmcore\.TrainSpec"):
        cm.Trainer(trainable, net, max)
    number = cm.Trainer(trainable, net, cm.TrainSpec(lambda *_: 1.0, compiled=False))
    scalars, x0 = {"lr": 0.1, "ema_decay": 0.5}, np.zeros((2, 2), np.float32)
    with pytest.raises(TypeError, match="must be an array, one number per sample, got float"):
        number.step(0, x0, scalars)
    with pytest.raises(TypeError, match=r"cond must be a mapping such as"):
        number.step(0, x0, scalars, x0)


def test_conditions_are_a_mapping(lib):
    x = lib.asarray(np.zeros((2, 2)))
    with pytest.raises(TypeError, match=r"cond must be a mapping such as"):
        cm.losses.denoising(lambda x, t, **cond: x, x, x, 1.0, cond=x)


def test_times_beyond_a_paths_end_are_refused_by_the_losses(lib):
    x = lib.asarray(np.ones((2, 2)))
    for path in (cm.paths.VP(), cm.paths.Linear(), cm.paths.Cosine()):
        with pytest.raises(ValueError, match=r"are at most 1\.0, got 80\.0"):
            cm.losses.denoising(lambda x, t: x, x, x, 80.0, path=path)


def own(backend, inputs="x, c_noise", parameters=True):
    """A network as a user writes it for a framework: a linear map with these inputs, or one that has nothing to train."""
    scope = {}
    if backend.name == "torch":
        import torch

        base, linear = torch.nn.Module, lambda: torch.nn.Linear(2, 2)
        body = f"def forward(self, {inputs}): return self.linear(x) if self.linear else 0.5 * x"
    elif backend.name == "jax":
        import equinox
        import jax

        base, linear = equinox.Module, lambda: equinox.nn.Linear(2, 2, key=jax.random.key(0))
        body = f"def __call__(self, {inputs}): return jax.vmap(self.linear)(x) if self.linear else 0.5 * x"
        scope["jax"] = jax
    else:
        from tinygrad import nn

        base, linear = object, lambda: nn.Linear(2, 2)
        body = f"def __call__(self, {inputs}): return self.linear(x) if self.linear else 0.5 * x"
    members = {}
    exec(body, scope, members)  # the text is ours
    if backend.name == "jax":

        class Own(base):
            linear: object

        return type("Own", (Own,), members)(linear() if parameters else None)

    class Own(base):
        def __init__(self):
            super().__init__()
            self.linear = linear() if parameters else None

    return type("Own", (Own,), members)()


X0 = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)


def step(backend, net, x0=X0, recipe="ect", cond=None, index=0, scalars=None, **frozen):
    recipe = cm.recipes.get(recipe)
    trainer = cm.Trainer(backend, net, recipe.train_spec(compiled=False), frozen)
    return trainer.step(index, x0, recipe.scalars(0, 10) if scalars is None else scalars, cond)


def test_a_network_of_ones_own_is_trained(trainable):
    label = {"label": np.zeros(4, np.int32)}
    assert np.isfinite(trainable.to_numpy(step(trainable, own(trainable, "x, c_noise, label"), cond=label)))


@pytest.mark.parametrize("shape", [(0, 2), (4, 0), ()], ids=str)
def test_an_empty_batch_is_no_batch(trainable, shape):
    with pytest.raises(ValueError, match=r"expects a batch x0 of at least one sample.*got shape \(.*\)\.$"):
        step(trainable, own(trainable), trainable.asarray(np.zeros(shape, np.float32)))


def test_data_of_another_precision_than_the_network_are_told_or_trained_on(trainable):
    x0 = X0.astype(np.float64)
    if trainable.name == "torch":
        for given in (x0, trainable.asarray(x0)):
            with pytest.raises(
                TypeError, match=r"x0 must have the dtype of the network's weights, float32, got float64: "
            ):
                step(trainable, own(trainable), given)
    else:
        assert np.isfinite(trainable.to_numpy(step(trainable, own(trainable), x0)))


@pytest.mark.parametrize(
    ("inputs", "recipe", "cond", "told"),
    [
        ("x, c_noise", "ect", "label", r"net\(x, c_noise, label=label\).*unexpected keyword argument 'label'\.$"),
        ("x, c_noise", "psd", None, r"net\(x, c_noise, c_end=c_end\).*unexpected keyword argument 'c_end'\.$"),
        ("x, c_noise, label", "ect", None, r"net\(x, c_noise\), and one .*missing 1 required .*'label'\.$"),
        ("x", "ect", None, r"net\(x, c_noise\), and one .*takes 2 positional arguments but 3 were given\.$"),
    ],
    ids=["label", "c_end", "no label", "no time"],
)
def test_a_network_without_an_input_that_it_needs_is_told(trainable, inputs, recipe, cond, told):
    cond = cond and {cond: np.zeros(4, np.int32)}
    net = own(trainable, inputs)
    with pytest.raises(TypeError, match=told):
        step(trainable, net, recipe=recipe, cond=cond, teacher=own(trainable, "x, c_noise, **rest"))


def test_other_mistakes_of_a_loss_stay_what_they_are(trainable):
    def loss(nets, x0, z, tau, scalars, cond):
        raise error

    trainer = cm.Trainer(trainable, own(trainable), cm.TrainSpec(loss, compiled=False))
    for error in (TypeError("f() got an unexpected keyword argument 'a'"), RuntimeError("dtype"), KeyError("forward")):
        with pytest.raises(type(error)) as caught:
            trainer.step(0, X0, {"lr": 0.1, "ema_decay": 0.5})
        assert caught.value is error


def test_a_network_with_nothing_to_train_is_told(trainable):
    with pytest.raises(TypeError, match=r"parameters.*(none|0 parameters).*\.$"):
        step(trainable, own(trainable, parameters=False))
    if trainable.name == "torch":
        with pytest.raises(TypeError, match=r"none that require a gradient\.$"):
            step(trainable, own(trainable).requires_grad_(False))


@pytest.mark.parametrize("recipe", [n for n in cm.recipes.names() if cm.recipes.get(n).needs_teacher])
def test_a_method_without_its_teacher_says_how_it_is_given(recipe):
    nets = dict.fromkeys(("online", "target"), lambda x, *times, **cond: 0.5 * x)
    method = cm.recipes.get(recipe)
    draws = {name: np.full(4, 0.4, np.float32) for name in method.draws}
    scalars = {name: np.asarray(value, np.float32) for name, value in method.scalars(0, 10).items()}
    if method.starts_as_teacher:
        return
    with pytest.raises(ValueError, match=r'frozen=\{"teacher": network\}\.$'):
        method.loss(nets, X0, X0, draws, scalars, {})


def test_a_steps_number_and_scalars_are_checked(trainable):
    for index in (-1, 0.5, "a", None):
        with pytest.raises((TypeError, ValueError), match=r"The step's number must be"):
            step(trainable, own(trainable), index=index)
    for scalars in ([1.0], 0.1):
        with pytest.raises(TypeError, match=r"scalars must be a mapping, such as recipe\.scalars\(step, total\)"):
            step(trainable, own(trainable), scalars=scalars)


def test_a_trainers_labels_are_the_networks_classes(trainable):
    net = trainable.network(cm.networks.ResidualMLP((2,), width=4, blocks=1, features=2, classes=3))
    for label, told in (
        (np.array([0, 1, 2, 3]), r"classes are 0 to 2, or negative for none; got the label 3\.$"),
        (np.zeros((4, 1), int), r"label of shape \(4,\), one a sample, got \(4, 1\)\.$"),
        (np.zeros(4), r"integers below 3, got float64\.$"),
    ):
        with pytest.raises((TypeError, ValueError), match=told):
            step(trainable, net, cond={"label": label})


def test_what_is_no_trainers_part_is_told(trainable):
    net, recipe = own(trainable), cm.recipes.get("ect")
    spec = recipe.train_spec(compiled=False)
    for call, told in (
        (lambda: cm.Trainer(trainable.name, net, spec), r"given a backend, such as cmcore\.use\(\) returns, got"),
        (lambda: cm.Trainer(trainable, net, spec, [net]), r"frozen must be a mapping such as .*, got list"),
        (lambda: cm.Trainer(trainable, net, spec).restore(None), r"A state is a mapping .*, got NoneType"),
        (lambda: step(trainable, net, scalars={**recipe.scalars(0, 10), "lr": "a"}), r"'lr' must be a number, got 'a'"),
        (lambda: step(trainable, net, scalars={**recipe.scalars(0, 10), "stage": None}), r"'stage' must be a number"),
        (lambda: step(trainable, net, scalars={**recipe.scalars(0, 10), "lr": np.zeros(2)}), r"'lr' must be a number"),
        (lambda: recipe.train_spec(compiled="no"), r"compiled must be True or False, got 'no'"),
        (lambda: recipe.train_spec(dropout=1), r"dropout must be True or False, got 1"),
        (lambda: recipe.train_spec(seed=-1), r"seed must be a whole number, 0 or more, got -1"),
        (lambda: recipe.scalars("a", 10), r"The step must be a whole number, got 'a'"),
        (lambda: recipe.scalars(0, 10.5), r"number of training steps must be a whole number, got 10\.5"),
    ):
        with pytest.raises((TypeError, ValueError), match=told + r".*\.$"):
            call()
    scalars = {name: np.float32(value) for name, value in recipe.scalars(0, 10).items()}
    assert np.isfinite(trainable.to_numpy(step(trainable, net, scalars=scalars)))


@pytest.mark.skipif(len(TRAINABLE) < 2, reason="needs two frameworks")
def test_another_frameworks_batch_is_told(trainable):
    other = cm.load(next(name for name in TRAINABLE if name != trainable.name))
    with pytest.raises(TypeError, match=rf"x0 as an array of {trainable.name} or of NumPy, got {other.name}"):
        step(trainable, own(trainable), other.asarray(X0))
