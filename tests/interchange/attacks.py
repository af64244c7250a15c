"""Pickles, files of torch, msgpack and safetensors made byte by byte, so that they can lie, and what is asked of those who read them."""

import io
import json
import struct
import tracemalloc
import zipfile
from contextlib import suppress

import pytest
from small import as_msgpack

import cmcore as cm

BYTES = 100 * 2**20


def expect_refused(place, content, match="cannot be read", name="a.bin"):
    """Expect that a file, or the folder that is there already, is refused, in little memory; the seconds are in BENCHMARKS.md."""
    path = place / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(cm.Error, match=match) as told:
        cm.import_model(path)
    assert len(str(told.value)) < 1000
    assert str(told.value).endswith(".")
    tracemalloc.start()
    try:
        with suppress(cm.Error):
            cm.import_model(path)
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()


MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\r\x00\x00\x00little_endian\x88s."


def text(string):
    return b"X" + struct.pack("<I", len(string.encode())) + string.encode()


def tupled(*items):
    return b"(" + b"".join(items) + b"t"


def whole(number):
    return b"\x8a\x10" + number.to_bytes(16, "little", signed=True)


def storage(kind="FloatStorage", key=None, count=None):
    return (
        tupled(text("storage"), f"ctorch\n{kind}\n".encode(), key or text("0"), text("cpu"), count or whole(4)) + b"Q"
    )


def tensor(numbers=None, offset=None, shape=None, strides=None):
    """A tensor of four numbers, or one that lies."""
    view = (offset or whole(0), shape or tupled(whole(4)), strides or tupled(whole(1)))
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + tupled(numbers or storage(), *view, b"\x89", b"}") + b"R"


def named(content, name="a.weight"):
    return b"}" + text(name) + content + b"s"


def program(body):
    return b"\x80\x04" + body + b"."


def in_zip(body, numbers=b"\0" * 16, **members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {"data.pkl": program(body), "data/0": numbers, **members}.items():
            archive.writestr(f"archive/{name}", content)
    return file.getvalue()


def in_old(body, count=4, numbers=b"\0" * 16, keys=None):
    return MAGIC + program(body) + program(keys or b"]" + text("0") + b"a") + struct.pack("<q", count) + numbers


def in_bytes(raw):
    return b"ctorch.storage\n_load_from_bytes\n" + b"\x8e" + struct.pack("<Q", len(raw)) + raw + b"\x85R"


def in_pickle(body):
    # A storage by itself is what is in there, in files that are meant well.
    return named(tensor(in_bytes(in_old(body))))


def ext(code, raw):
    return b"\xc9" + struct.pack(">IB", len(raw), code) + raw


def array(shape, kind="float32", numbers=bytes(16)):
    return ext(1, as_msgpack([shape, kind, numbers]))


def mapped(content, name="params"):
    return b"\x81" + as_msgpack(name) + content


def tensors_file(header, numbers=b"\0" * 16, size=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if size is None else size) + raw + numbers


def said_of(kind="F32", shape=(4,), place=(0, 16)):
    return {"a.weight": {"dtype": kind, "shape": list(shape), "data_offsets": list(place)}}
