"""Zips, msgpack, safetensors and folders that are meant to harm: each is refused within a second and 100 MB."""

import io
import json
import os
import struct
import zipfile
import zlib
from functools import partial

import numpy as np
import pytest
from attacks import (
    array,
    expect_refused,
    ext,
    in_bytes,
    in_old,
    in_zip,
    mapped,
    named,
    program,
    said_of,
    storage,
    tensor,
    tensors_file,
    text,
    tupled,
    whole,
)
from small import as_msgpack

import cmcore as cm
from cmcore.interchange.opening import opened
from cmcore.interchange.torch_file import write_state_dict

pytestmark = pytest.mark.timeout(15)


@pytest.fixture
def refused(tmp_path):
    return partial(expect_refused, tmp_path)


def test_zip_bombs(refused):
    big = named(tensor(storage(count=whole(5 * 10**7)), shape=tupled(whole(5 * 10**7))))
    refused(in_zip(big))
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
            archive.writestr("archive/data.pkl", program(big), zipfile.ZIP_STORED)
            with archive.open("archive/data/0", "w") as member:
                for _ in range(4):
                    member.write(bytes(10**6))
        refused(file.getvalue(), "compressed")


def test_a_pickle_in_a_zip_that_says_it_is_small(refused):
    """Two megabytes of zip for two gigabytes; the list of its members says a thousand bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(packer.compress(b"]0" * 500_000) for _ in range(300)) + packer.flush()
    header = struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 8, 0, 0, 0, len(packed), 1000, 16, 0) + b"archive/data.pkl"
    listed = struct.pack(
        "<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 8, 0, 0, 0, len(packed), 1000, 16, 0, 0, 0, 0, 0, 0
    )
    listed += b"archive/data.pkl"
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 1, 1, len(listed), len(header) + len(packed), 0)
    refused(header + packed + listed + end, "compressed")


def patched(raw, signature, offset, form, value):
    """Change a number in the last record of a zip with this signature."""
    place = raw.rindex(signature) + offset
    return raw[:place] + struct.pack(form, value) + raw[place + struct.calcsize(form) :]


def test_zips_that_lie(refused):
    good = in_zip(named(tensor()))
    listed = b"PK\x01\x02"
    for size in (15, 17, 2**31, 2**32 - 2):
        refused(patched(patched(good, listed, 20, "<I", size), listed, 24, "<I", size))
    refused(patched(good, listed, 24, "<I", 2**31))
    refused(patched(good, listed, 8, "<H", 1))  # encrypted
    refused(patched(good, listed, 10, "<H", 99))  # packed in a way that is not known
    refused(patched(good, listed, 6, "<H", 99))  # by a later zip
    refused(patched(good, listed, 42, "<I", 2**31))
    refused(patched(good, listed, 42, "<I", 3))
    refused(patched(good, b"PK\x05\x06", 12, "<I", 2**31))
    refused(patched(good, b"PK\x05\x06", 16, "<I", 2**31))
    refused(in_zip(named(tensor()), **{"x/data.pkl": program(named(tensor()))}), "several data.pkl")
    refused(in_zip(named(tensor()), byteorder="big"), "big-endian")
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        archive.writestr("model.txt", "none")
    refused(many.getvalue(), "no data.pkl")


def member(name, content, listed=None):
    """A member's head in a zip, or its line in the list at the end, with its place."""
    sizes = (zlib.crc32(content), len(content), len(content), len(name))
    if listed is None:
        return struct.pack("<IHHHHHIIIHH", 0x04034B50, 20, 0, 0, 0, 0, *sizes, 0) + name
    return struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 20, 20, 0, 0, 0, 0, *sizes, 0, 0, 0, 0, 0, listed) + name


def test_members_of_a_zip_that_lie_in_each_other(refused):
    """Two hundred storages of a megabyte in a zip of one: each has the next ones among its numbers."""
    inside, places = bytes(2**20), {}
    for i in reversed(range(200)):
        places[i], name = inside, f"archive/data/{i}".encode()
        inside = member(name, inside) + inside
    body = b"}(" + b"".join(
        text(f"a{i}") + tensor(storage("ByteStorage", text(str(i)), whole(len(x))), shape=tupled(whole(len(x))))
        for i, x in places.items()
    ) + b"u"  # fmt: skip
    whole_file = member(b"archive/data.pkl", program(body)) + program(body) + inside
    lines = member(b"archive/data.pkl", program(body), 0)
    for i, content in places.items():
        name = f"archive/data/{i}".encode()
        lines += member(name, content, len(whole_file) - len(content) - len(member(name, content)))
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 201, 201, len(lines), len(whole_file), 0)
    refused(whole_file + lines + end)


def extensions_in_extensions(levels, padding):
    raw = as_msgpack(bytes(padding))
    for _ in range(levels):
        raw = ext(1, raw)
    return raw


MSGPACKS = {
    "a map of 2^32": lambda: b"\xdf\xff\xff\xff\xff",
    "a list of 2^32": lambda: mapped(b"\xdd\xff\xff\xff\xff"),
    "lists of 2^32 in each other": lambda: mapped(b"\xdd\xff\xff\xff\xff" * 60),
    "many small values": lambda: mapped(b"\xdd" + struct.pack(">I", 2 * 10**6) + b"\x80" * 2 * 10**6),
    "bytes of 2^32": lambda: mapped(b"\xc6\xff\xff\xff\xff"),
    "an extension of 2^32": lambda: mapped(b"\xc9\xff\xff\xff\xff\x01"),
    "lists in lists": lambda: mapped(b"\x91" * 10**6),
    "maps in maps": lambda: mapped(b"\x81\xa1a" * 10**6),
    "extensions in extensions": lambda: mapped(extensions_in_extensions(60, 4 * 10**6)),
    "arrays in arrays": lambda: mapped(array(4, "float32", 0)[:6] + b"\x93" + array([4]) * 3),
    "a list as a name": lambda: b"\x81\x91\x01" + array([4]),
    "more after the end": lambda: mapped(array([4])) + b"\xc0",
    "a name that is no text": lambda: b"\x81\xa1\xff" + array([4]),
    "a shape of text": lambda: mapped(array(["x" * 1000, 10**9])),
    "a shape of lists": lambda: mapped(array([[1, 2], 10**9])),
    "a shape of fractions": lambda: mapped(array([4.0])),
    "a shape below zero": lambda: mapped(array([-2, -2])),
    "a shape below zero once": lambda: mapped(array([-1])),
    "a shape of many axes": lambda: mapped(array([1] * 1000)),
    "a shape of many long axes": lambda: mapped(array([2**40] * 60_000)),
    "a shape that is larger": lambda: mapped(array([5])),
    "a shape that is a number": lambda: mapped(array(4)),
    "nothing times much": lambda: mapped(array([0, 2**62, 2**62], numbers=b"")),
    "numbers that are none": lambda: mapped(array([4], numbers=[0] * 16)),
    "objects": lambda: mapped(array([2], "object")),
    "a type that is no text": lambda: mapped(array([2], 7)),
    "chunks of nothing": lambda: mapped(as_msgpack({"__msgpack_chunked_array__": 1, "shape": {"0": 4}, "chunks": {}})),
    "chunks that are none": lambda: mapped(as_msgpack({"__msgpack_chunked_array__": 1, "shape": 3, "chunks": [1]})),
    "chunks of another shape": lambda: mapped(as_msgpack(
        {"__msgpack_chunked_array__": 1, "shape": {"0": 5}, "chunks": {"0": np.zeros(4, np.float32)}})),
    "a byte without a meaning": lambda: mapped(b"\xc1"),
}  # fmt: skip


@pytest.mark.parametrize("name", MSGPACKS)
def test_msgpack_that_lies(name, refused):
    refused(MSGPACKS[name]())


SAFETENSORS = {
    "a header of 2^60 bytes": lambda: tensors_file(said_of(), size=2**60),
    "a header of 2^64 bytes": lambda: tensors_file(said_of(), size=2**64 - 1),
    "a header of the file's size": lambda: tensors_file(said_of(), size=10**4),
    "a header of nothing": lambda: tensors_file(said_of(), size=0),
    "a header that is deep": lambda: tensors_file(b'{"a":' + b"[" * 10**6),
    "tensors that overlap": lambda: tensors_file(said_of() | {"b": said_of(place=(8, 24))["a.weight"]}, bytes(24)),
    "tensors on each other": lambda: tensors_file(said_of() | {"b": said_of()["a.weight"]}),
    "a hole": lambda: tensors_file(said_of() | {"b": said_of(place=(20, 36))["a.weight"]}, bytes(36)),
    "more than there is": lambda: tensors_file(said_of(shape=(5,), place=(0, 20))),
    "more than the file": lambda: tensors_file(said_of(shape=(2**40,), place=(0, 2**42))),
    "less than the shape": lambda: tensors_file(said_of(shape=(5,))),
    "beyond 64 bits": lambda: tensors_file(said_of(shape=(2**32, 2**32))),
    "backwards": lambda: tensors_file(said_of(place=(16, 0))),
    "below zero": lambda: tensors_file(said_of(shape=(-4,))),
    "a type that is not known": lambda: tensors_file(said_of("Q7")),
    "a type that numpy lacks": lambda: tensors_file(said_of("F8_E4M3", (16,))),
    "more after the end": lambda: tensors_file(said_of(), bytes(17)),
    "no tensor at all": lambda: tensors_file({"a": 1}),
}


@pytest.mark.parametrize("name", SAFETENSORS)
def test_safetensors_that_lie(name, refused):
    refused(SAFETENSORS[name]())


@pytest.fixture
def shards(tmp_path):
    """A folder of diffusers with its weights in two files, and a secret beside it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "one.safetensors").write_bytes(tensors_file(said_of()))
    (tmp_path / "two.safetensors").write_bytes(tensors_file({"b": said_of()["a.weight"]}))

    def write(index):
        raw = index if isinstance(index, bytes) else json.dumps(index).encode()
        (folder / "diffusion_pytorch_model.safetensors.index.json").write_bytes(raw)
        return folder

    return write


@pytest.mark.parametrize(
    "index",
    [
        {"weight_map": {"a.weight": "one.safetensors", "b": "../two.safetensors"}},
        {"weight_map": {"a.weight": "one.safetensors", "b": "..\\two.safetensors"}},
        {"weight_map": {"b": "/etc/passwd"}},
        {"weight_map": {"b": ".."}},
        {"weight_map": {"b": ""}},
        {"weight_map": {"b": "nothing.safetensors"}},
        {"weight_map": {"b": "config.json"}},
        {"weight_map": {"b": "one.safetensors\0"}},
        {"weight_map": {"b": 7}},
        {"weight_map": {"b": "one.safetensors"}},
        {"weight_map": ["one.safetensors"]},
        {"weight_map": {}},
        {},
        b"[" * 10**6,
        b"[" + b"[]," * 10**7 + b"[]]",
        b"",
    ],
    ids=lambda index: str(index)[:60],
)
def test_shards_that_lead_elsewhere(index, shards, refused):
    shards(index)
    refused(None, "cannot be read", "folder")


def test_settings_that_are_none(refused, tmp_path):
    (tmp_path / "edm").mkdir()
    (tmp_path / "edm" / "network.safetensors").write_bytes(tensors_file(said_of()))
    for settings in ("[]", '{"preconditioning": "EDMPrecond", "init": 3}', "[" * 10**5, "", '{"init": NaN}', '{"a'):
        (tmp_path / "edm" / "network.json").write_text(settings)
        refused(None, "cannot be read", "edm")


def test_what_is_no_regular_file(refused, tmp_path, shards):
    os.mkfifo(tmp_path / "pipe")
    refused(None, "is no regular file", "pipe")
    (tmp_path / "nothing").symlink_to("/dev/null")
    refused(None, "is no regular file", "nothing")
    os.mkfifo(shards({"weight_map": {"b": "pipe.safetensors"}}) / "pipe.safetensors")
    refused(None, "cannot be read", "folder")


FOUR = np.arange(4, dtype=np.float32).tobytes()
HONEST = {
    "a zip": lambda: in_zip(named(tensor()), FOUR),
    "an old file": lambda: in_old(named(tensor()), 4, FOUR),
    "a pickle": lambda: program(named(tensor(in_bytes(in_old(storage(), 4, FOUR))))),
    "msgpack": lambda: mapped(as_msgpack({"a.weight": np.arange(4, dtype=np.float32)})),
    "safetensors": lambda: tensors_file(said_of(), FOUR),
}


@pytest.mark.parametrize("name", HONEST)
def test_what_the_attacks_are_made_of_is_read(name, tmp_path):
    (tmp_path / "a").write_bytes(HONEST[name]())
    tensors = opened(tmp_path / "a").tensors
    assert tensors.keys() == {"a.weight"}
    assert (tensors["a.weight"] == np.arange(4)).all()


def test_weights_in_several_files(shards, tmp_path):
    (tmp_path / "two.safetensors").rename(tmp_path / "folder" / "two.safetensors")
    folder = shards({"metadata": {}, "weight_map": {"a.weight": "one.safetensors", "b": "two.safetensors"}})
    # As the hub's cache has it.
    (folder / "one.safetensors").rename(tmp_path / "blob")
    (folder / "one.safetensors").symlink_to("../blob")
    assert opened(folder).tensors.keys() == {"a.weight", "b"}


def honest(place):
    """A small file of each kind, with the same weight."""
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_state_dict(place / "zip.pt", {"model.a.weight": weight, "model.b": np.arange(3)})
    body = named(tensor(storage(count=whole(12)), None, tupled(whole(3), whole(4)), tupled(whole(4), whole(1))))
    (place / "old.pt").write_bytes(in_old(body, 12, weight.tobytes()))
    inner = in_bytes(in_old(storage(count=whole(12)), 12, weight.tobytes()))
    (place / "a.pkl").write_bytes(
        program(named(tensor(inner, None, tupled(whole(3), whole(4)), tupled(whole(4), whole(1)))))
    )
    (place / "flax").write_bytes(as_msgpack({"params": {"a": weight}, "step": 1.5, "more": [1, "x", b"y"]}))
    (place / "a.safetensors").write_bytes(tensors_file(said_of(shape=(3, 4), place=(0, 48)), weight.tobytes()))
    return weight


@pytest.mark.parametrize("name", ["zip.pt", "old.pt", "a.pkl", "flax", "a.safetensors"])
def test_a_file_that_ends_too_early(name, tmp_path, refused):
    weight = honest(tmp_path)
    path = tmp_path / name
    (first, *_) = opened(path).tensors.values()
    assert (first == weight).all()
    raw = path.read_bytes()
    for end in sorted({*np.linspace(0, len(raw) - 1, 50).astype(int)}):
        path.write_bytes(raw[:end])
        with pytest.raises(cm.Error, match="cannot be read"):
            cm.import_model(path)
