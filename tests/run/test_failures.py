"""Too little memory, and what frameworks raise: sentences that name what can be typed."""

import pytest
from conftest import TRAINABLE
from toy import make_data

import cmcore as cm
from cmcore.run import cli
from cmcore.run.config import Config
from cmcore.run.failures import out_of_memory, unexpected
from cmcore.run.train import train

needs_training = pytest.mark.skipif(not TRAINABLE, reason="no backend that can train takes part")


class FrameworkError(RuntimeError):
    pass


WORDS = [
    MemoryError(),
    FrameworkError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:130] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    FrameworkError("RESOURCE_EXHAUSTED: Out of memory allocating 109951162777600 bytes."),
    ValueError("array is too big; `arr.size * arr.dtype.itemsize` is larger than the maximum possible size."),
    RuntimeError("CUDA_ERROR_OUT_OF_MEMORY"),
]


@pytest.mark.parametrize("failure", WORDS, ids=lambda f: str(f)[:20])
def test_want_of_memory_names_what_to_make_smaller(failure, monkeypatch, capsys):
    def fail(args):
        raise failure

    monkeypatch.setattr(cli.commands, "train", fail)
    monkeypatch.setattr(cli.commands, "sample", fail)
    assert cli.main(["train", "--out", "x"]) == 2
    told = capsys.readouterr().err
    assert "not enough memory" in told
    assert all(option in told for option in ("--batch", "--width", "--size"))
    assert cli.main(["sample", "run", "--out", "x"]) == 2
    assert "--batch" in (told := capsys.readouterr().err)
    assert "--width" not in told


@pytest.mark.parametrize(
    "failure",
    [
        FrameworkError("INTERNAL: ptxas exited\n\nStack trace below:\n  File x, line 1"),
        KeyError("weight"),
        AttributeError("'NoneType' object has no attribute 'shape'"),
        RuntimeError(""),
    ],
)
def test_what_nobody_foresaw_is_one_line(failure, monkeypatch, capsys):
    def fail(args):
        raise failure

    monkeypatch.setattr(cli.commands, "train", fail)
    assert not out_of_memory(failure)
    assert cli.main(["train", "--out", "x"]) == 1
    told = capsys.readouterr().err
    assert told == f"cmcore: {unexpected(failure)}\n"
    assert told.startswith(f"cmcore: {type(failure).__name__}")
    assert told.endswith("Add --debug to see where.\n")
    with pytest.raises(type(failure)):
        cli.main(["train", "--out", "x", "--debug"])


@needs_training
@pytest.mark.parametrize("typed", ["--batch 1000000000000", "--width 10000000000", "--width 1000000 --blocks 100"])
def test_real_want_of_memory(tmp_path, typed, capsys):
    arguments = f"train --data digits --steps 2 --no-compile --backend {TRAINABLE[0]} {typed} --out {tmp_path / 'run'}"
    assert cli.main(arguments.split()) == 2
    assert "not enough memory" in capsys.readouterr().err
    again = f"train --data digits --steps 1 --batch 4 --width 8 --no-compile --backend {TRAINABLE[0]} --out {tmp_path / 'run'}"
    assert cli.main(again.split()) == 0


@needs_training
def test_memory_that_ends_later_keeps_what_is_saved(tmp_path, monkeypatch):
    from cmcore.training import Trainer

    original = Trainer.step

    def failing(self, index, *args, **kwargs):
        if index == 3:
            raise FrameworkError("CUDA out of memory.\nSee documentation")
        return original(self, index, *args, **kwargs)

    config = Config(backend=TRAINABLE[0], steps=4, save_every=2, batch=8, width=8, blocks=1, compiled=False)
    monkeypatch.setattr(Trainer, "step", failing)
    with pytest.raises(cm.Error, match=r"out of memory\. .* The state after step 2 is kept; .*--resume") as told:
        train(config, make_data(), out=tmp_path / "run")
    assert out_of_memory(told.value)
    monkeypatch.setattr(Trainer, "step", original)
    assert train(config, make_data(), out=tmp_path / "run", resume=True).step == 4
