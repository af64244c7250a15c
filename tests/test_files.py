import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from cmcore._files import atomic_write, read_arrays, write_arrays
from cmcore.errors import Error


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_writes_bytes_and_by_a_function(tmp_path):
    path = tmp_path / "a"
    atomic_write(path, b"one")
    assert path.read_bytes() == b"one"
    atomic_write(str(path), lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("raised", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, raised):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half")
        raise raised

    with pytest.raises(raised):
        atomic_write(path, write)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_the_old_file_is_there_until_all_is_written(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"

    atomic_write(path, write)
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    program = """
        import os, signal, sys
        from cmcore._files import atomic_write
        def write(file):
            file.write(b"x" * 1_000_000)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        atomic_write(sys.argv[1], write)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(path)])
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_syncs_the_file_before_and_the_folder_after_the_rename(tmp_path, monkeypatch):
    path, seen = tmp_path / "a", []
    fsync = os.fsync

    def watched(handle):
        seen.append((Path(f"/proc/self/fd/{handle}").is_dir(), path.exists()))
        fsync(handle)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", watched)
    atomic_write(path, b"x")
    assert seen == [(False, False), (True, True)]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX file modes")
def test_modes(tmp_path):
    plain, path = tmp_path / "plain", tmp_path / "a"
    plain.write_bytes(b"")
    atomic_write(path, b"x")
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o640)
    atomic_write(path, b"y")
    assert path.stat().st_mode & 0o777 == 0o640


def test_through_a_link(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        atomic_write(tmp_path / "none" / "a", b"x")


@pytest.mark.parametrize("readable", [True, False], ids=["once", "for good"])
def test_a_file_that_cannot_be_opened_is_not_said_to_be_missing(tmp_path, monkeypatch, readable):
    path = tmp_path / "a.safetensors"
    write_arrays(path, {"x": np.zeros(2)}, {})
    safetensors = pytest.importorskip("safetensors")

    def refuse(*_, **__):
        raise FileNotFoundError(f"No such file or directory: {path}")

    def denied(self, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(safetensors, "safe_open", refuse)
    if not readable:
        monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(OSError, match=r"a\.safetensors") as told:
        read_arrays(path)
    assert told.value.errno == (errno.EIO if readable else errno.EACCES)
    assert told.value.filename == str(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        Error, match="pipe is not a file that can be replaced but a device or a pipe; choose another place"
    ):
        atomic_write(tmp_path / "pipe", b"x")
    assert (tmp_path / "pipe").is_fifo()
    assert names(tmp_path) == ["pipe"]
