"""Files that are meant to harm: each is refused by a sentence within a second and 100 MB, and nothing in them is executed.

The attacks are shown to work: Python's own unpickler runs every command.
"""

import copyreg
import io
import json
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
import zlib
from contextlib import suppress

import numpy as np
import pytest
from small import as_msgpack

import cmcore as cm
from cmcore.interchange.opening import opened
from cmcore.interchange.torch_file import write_state_dict

pytestmark = pytest.mark.timeout(15)
SECONDS, BYTES = 1.0, 100 * 2**20
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


@pytest.fixture
def refused(tmp_path):
    """Expect that a file, or what is made of one, is refused, quickly and in little memory."""

    def check(content, match="cannot be read", name="a.bin", **options):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        start = time.process_time()
        with pytest.raises(cm.Error, match=match) as told:
            cm.import_model(path, **options)
        assert time.process_time() - start < SECONDS
        assert len(str(told.value)) < 1000
        assert str(told.value).endswith(".")
        tracemalloc.start()
        try:
            with suppress(cm.Error):
                cm.import_model(path, **options)
            assert tracemalloc.get_traced_memory()[1] < BYTES
        finally:
            tracemalloc.stop()

    return check


CODE = 0x7FFFFF01
CODES = {
    "EXT1": (0xF1, b"\x82\xf1"),
    "EXT2": (0xFFF1, b"\x83\xf1\xff"),
    "EXT4": (CODE, b"\x84" + struct.pack("<i", CODE)),
}


class Runs:
    """Runs a line of shell when it is made."""

    def __new__(cls, line):
        return os.system(line)


ROUTES = {
    "GLOBAL": lambda line: b"cos\nsystem\n" + line + b"\x85R",
    "STACK_GLOBAL": lambda line: text("os") + text("system") + b"\x93" + line + b"\x85R",
    "INST": lambda line: b"(" + line + b"ios\nsystem\n",
    "OBJ": lambda line: b"(cos\nsystem\n" + line + b"o",
    "NEWOBJ": lambda line: b"ctest_hostile\nRuns\n" + line + b"\x85\x81",
    "NEWOBJ_EX": lambda line: b"ctest_hostile\nRuns\n" + line + b"\x85}\x92",
    "BUILD": lambda line: b"ctypes\nSimpleNamespace\n)R" + named(b"cos\nsystem\n", "__setstate__") + b"b" + line + b"b",
    "EXT1": lambda line: CODES["EXT1"][1] + line + b"\x85R",
    "EXT2": lambda line: CODES["EXT2"][1] + line + b"\x85R",
    "EXT4": lambda line: CODES["EXT4"][1] + line + b"\x85R",
    "PERSID": lambda line: b"P" + line[5:] + b"\n",
    "BINPERSID": lambda line: line + b"Q",
    "eval": lambda line: b"cbuiltins\neval\n" + text(f"__import__('os').system({line[5:].decode()!r})") + b"\x85R",
    "getattr": lambda line: b"cbuiltins\ngetattr\ncbuiltins\n__import__\n" + text("os") + b"\x85R" + text("system")
    + b"\x86R" + line + b"\x85R",
    "a dotted name": lambda line: text("shutil") + text("os.system") + b"\x93" + line + b"\x85R",
    "items": lambda line: b"coperator\nmethodcaller\n" + text("__call__") + line + b"\x86Rcos\nsystem\n\x85R",
    "a torch name": lambda line: b"ctorch._utils\n_rebuild_parameter\ncos\nsystem\n" + line + b"\x85R\x89}\x87R",
}  # fmt: skip
"""Pickled expressions that run a line of shell when they are unpickled."""

PLACES = {
    "alone": lambda body: program(body),
    "among weights": lambda body: program(b"}" + text("ema") + body + b"s" + text("x") + b"N" + b"s"),
    "a zip": lambda body: in_zip(named(body)),
    "an old file": lambda body: in_old(named(body)),
    "keys of an old file": lambda body: in_old(named(tensor()), keys=b"]" + body + b"a"),
    "a storage": lambda body: program(in_pickle(body)),
    "a storage's key": lambda body: in_zip(named(tensor(storage(key=body)))),
    "a storage's size": lambda body: in_zip(named(tensor(storage(count=body)))),
    "a shape": lambda body: in_zip(named(tensor(shape=body))),
    "an offset": lambda body: in_zip(named(tensor(offset=body))),
    "EDM's source code": lambda body: program(
        b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n" + named(body, "module_src") + b"\x85R"
    ),
}


class Python(pickle.Unpickler):
    def persistent_load(self, line):
        return os.system(line)


@pytest.fixture
def extensions():
    for code, _ in CODES.values():
        copyreg.add_extension("os", "system" if code == CODE else f"system{code}", code)
        copyreg._inverted_registry[code] = ("os", "system")
    yield
    for code, _ in CODES.values():
        copyreg._inverted_registry[code] = ("os", "system" if code == CODE else f"system{code}")
        copyreg.remove_extension(*copyreg._inverted_registry[code], code)
        copyreg._extension_cache.pop(code, None)


@pytest.mark.parametrize("route", ROUTES)
def test_nothing_is_executed(route, refused, extensions, tmp_path):
    trace = tmp_path / "trace"
    body = ROUTES[route](text(f"touch {trace}"))
    with suppress(Exception):
        Python(io.BytesIO(program(body))).load()
    assert trace.exists(), "The attack does not work at all."
    trace.unlink()
    for place in PLACES.values():
        refused(place(body), "cannot be read|no weights")
        assert not trace.exists()


def laughs(levels, leaf, join):
    """Each level is twice the one below it: two thousand bytes stand for 2^levels of them."""
    return leaf + b"".join(join(b"q" + bytes([i]) + b"0", b"h" + bytes([i])) for i in range(levels))


PAIRS = laughs(200, text("x" * 100), lambda keep, there: keep + there + there + b"\x86")
DICTS = laughs(200, b"}", lambda keep, there: keep + b"}(" + text("a") + there + text("b") + there + b"u")
LEAVES = laughs(200, tensor(), lambda keep, there: keep + b"}(" + text("a") + there + text("b") + there + b"u")
WIDE = 2**61 - 1


def many(n, content):
    return b"".join(text(str(i)) + content for i in range(n))


def keys_that_collide(n):
    return b"}(" + b"".join(b"\x8a\x0b" + (i * WIDE).to_bytes(11, "little") + b"N" for i in range(1, n)) + b"u"


PICKLES = {
    "two to the 200 pairs, as a key": lambda: in_zip(named(tensor(storage(key=PAIRS)))),
    "two to the 200 pairs, as a class": lambda: in_zip(named(PAIRS + b"2\x93")),
    "two to the 200 pairs, as old keys": lambda: in_old(named(tensor()), keys=b"]" + PAIRS + b"a"),
    "two to the 200 dicts": lambda: program(named(DICTS)),
    "two to the 200 tensors": lambda: in_zip(LEAVES),
    "many sets with one content": lambda: program(b"}(" + many(2_000, b"N") + b"uq\x000}(" + many(2_000, b"h\x00") + b"u"),
    "lists in lists": lambda: program(b"]" * 150_000 + b"a" * 149_999),
    "dicts in dicts": lambda: in_zip((b"}" + text("a")) * 50_000 + tensor() + b"s" * 50_000),
    "calls of calls": lambda: program(b"cos\nsystem\n" + b")R" * 150_000),
    "long names in long names": lambda: in_zip(
        text("x" * 10**6) + b"q\x000" + b"}h\x00" * 300 + tensor() + b"s" * 300),
    "a pile": lambda: program(b"]" * 10**6),
    "values without end": lambda: program(b"]0" * 10**6),
    "a long memory": lambda: program(b"N" + b"\x94" * 10**6),
    "keys that collide": lambda: program(keys_that_collide(100_000)),
    "places in memory that collide": lambda: program(
        b"N" + b"".join(b"p%d\n" % (i * WIDE) for i in range(1, 50_000))),
    "one storage again and again": lambda: program(
        b"B" + struct.pack("<I", 3 * 10**6) + bytes(3 * 10**6) + b"q\x000]" + (
            b"ctorch.storage\n_load_from_bytes\nh\x00\x85Ra") * 100),
    "one real storage again and again": lambda: program(
        b"\x8e" + struct.pack("<Q", len(BIG)) + BIG + b"q\x000]" + (
            b"ctorch.storage\n_load_from_bytes\nh\x00\x85Ra") * 200),
    "storages in storages": lambda: program(nested_storages(30)),
    "LONG4": lambda: program(b"\x8b" + struct.pack("<i", 2**31 - 1)),
    "LONG4 below zero": lambda: program(b"\x8b" + struct.pack("<i", -5)),
    "BINBYTES8": lambda: program(b"\x8e" + struct.pack("<Q", 2**62)),
    "BINBYTES8 of 8 GB": lambda: program(b"\x8e" + struct.pack("<Q", 2**33)),
    "BINUNICODE8": lambda: program(b"\x8d" + struct.pack("<Q", 2**33)),
    "BYTEARRAY8": lambda: program(b"\x96" + struct.pack("<Q", 2**33)),
    "BINBYTES": lambda: program(b"B" + struct.pack("<I", 2**32 - 1)),
    "FRAME": lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "a decimal number": lambda: program(b"L" + b"9" * 10**6 + b"L\n"),
    "a buffer elsewhere": lambda: program(b"\x97"),
    "nothing on the stack": lambda: program(b""),
    "a mark alone": lambda: program(b"("),
    "items of nothing": lambda: program(b"u"),
    "a memory of nothing": lambda: program(b"h\x07"),
    "an odd number of items": lambda: program(b"}(Nu"),
    "a dict with arguments": lambda: program(b"ccollections\nOrderedDict\n]" + text("a") + b"a\x85R"),
}  # fmt: skip


def an_old_storage(count, numbers):
    return in_old(storage(count=whole(count)), count, numbers)


BIG = an_old_storage(10**6, bytes(4 * 10**6))


def nested_storages(levels):
    raw = an_old_storage(4, bytes(16))
    for _ in range(levels):
        raw = in_old(in_bytes(raw))
    return in_bytes(raw)


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_that_grows(name, refused):
    refused(PICKLES[name](), "cannot be read|no weights")


BAD_SHAPES = {
    "more than the storage": tupled(whole(5)),
    "far more": tupled(whole(2**62)),
    "beyond 64 bits when multiplied": tupled(whole(2**40), whole(2**40)),
    "zero when multiplied in 64 bits": tupled(whole(2**32), whole(2**32)),
    "below zero": tupled(whole(-4)),
    "twice below zero": tupled(whole(-2), whole(-2)),
    "nothing times much": tupled(whole(0), whole(2**62), whole(2**62)),
    "text": tupled(text("x" * 1000), whole(10**9)),
    "a list": tupled(b"]NaNaNa", whole(10**9)),
    "a fraction": tupled(b"G" + struct.pack(">d", 4.0)),
    "truth": tupled(b"\x88"),
    "many axes": b"(" + whole(1) * 1000 + b"t",
    "many long axes": b"(" + whole(2**62) * 60_000 + b"t",
    "no tuple": whole(4),
}


@pytest.mark.parametrize("wrap", [in_zip, in_old])
@pytest.mark.parametrize("name", BAD_SHAPES)
def test_shapes_that_lie(name, wrap, refused):
    shape = BAD_SHAPES[name]
    count = shape.count(b"\x8a\x10") or 1
    for strides in (tupled(*[whole(0)] * count), tupled(*[whole(1)] * count), shape):
        refused(wrap(named(tensor(shape=shape, strides=strides))))


@pytest.mark.parametrize("wrap", [in_zip, in_old])
@pytest.mark.parametrize(
    "view",
    [
        {"offset": whole(1)},
        {"offset": whole(-1)},
        {"offset": whole(2**62)},
        {"offset": text("0")},
        {"strides": tupled(whole(-1))},
        {"strides": tupled(whole(2))},
        {"strides": tupled(whole(2**62))},
        {"strides": tupled(whole(1), whole(1))},
        {"strides": tupled()},
        {"strides": b"N"},
        {"numbers": b"N"},
        {"numbers": storage(count=whole(3))},
        {"numbers": storage(count=whole(2**62))},
        {"numbers": storage(count=whole(-1))},
        {"numbers": storage(count=text("4"))},
        {"numbers": storage(key=text("1"))},
        {"numbers": storage(key=text("../data.pkl"))},
        {"numbers": storage("DoubleStorage")},
        {"numbers": storage("StringStorage")},
        {"numbers": text("0") + b"Q"},
        {"numbers": tupled(text("storage")) + b"Q"},
        {"numbers": tupled(text("module"), *[text("x")] * 4) + b"Q"},
    ],
    ids=str,
)
def test_views_that_lie(view, wrap, refused):
    refused(wrap(named(tensor(**view))))


def test_a_storage_that_two_tensors_see_in_two_ways(refused):
    body = b"}" + text("a") + tensor() + b"s" + text("b") + tensor(storage("DoubleStorage", count=whole(2))) + b"s"
    for wrap in (in_zip, in_old):
        refused(wrap(body), "in two ways")


def test_old_files_that_lie(refused):
    body = named(tensor())
    for count, numbers in ((5, b"\0" * 20), (4, b"\0" * 15), (2**40, b""), (-1, b"\0" * 16)):
        refused(in_old(body, count, numbers))
    refused(in_old(named(tensor(storage(count=whole(2**33)))), 2**33, b"\0" * 16))
    refused(in_old(named(tensor(storage(count=whole(2**62)))), 2**62, b"\0" * 16))
    refused(in_old(body, keys=b"]" + text("1") + b"a"))
    refused(in_old(body, keys=b"N"))
    refused(MAGIC.replace(b"\x88s.", b"\x89s.") + in_old(body)[len(MAGIC) :], "big-endian")


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


def test_members_of_a_zip_that_are_one_and_the_same(refused):
    """A hundred storages of a megabyte, all of them the same bytes of the file."""
    body = b"}(" + b"".join(
        text(f"a{i}") + tensor(storage(key=text(str(i)), count=whole(2**18)), shape=tupled(whole(2**18)))
        for i in range(300)
    ) + b"u"  # fmt: skip
    numbers, names = bytes(2**20), [f"archive/data/{i}" for i in range(300)]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", program(body))
        archive.writestr(names[0], numbers)
        for name in names[1:]:
            twin = archive.getinfo(names[0])
            copy = zipfile.ZipInfo(name)
            for field in ("header_offset", "file_size", "compress_size", "CRC", "flag_bits"):
                setattr(copy, field, getattr(twin, field))
            archive.filelist.append(copy)
            archive.NameToInfo[name] = copy
    refused(file.getvalue())


def ext(code, raw):
    return b"\xc9" + struct.pack(">IB", len(raw), code) + raw


def array(shape, kind="float32", numbers=bytes(16)):
    return ext(1, as_msgpack([shape, kind, numbers]))


def mapped(content, name="params"):
    return b"\x81" + as_msgpack(name) + content


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
    "a shape of many long axes": lambda: mapped(array([2**62] * 60_000)),
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


def tensors_file(header, numbers=b"\0" * 16, size=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if size is None else size) + raw + numbers


def said_of(kind="F32", shape=(4,), place=(0, 16)):
    return {"a.weight": {"dtype": kind, "shape": list(shape), "data_offsets": list(place)}}


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


def test_what_is_no_regular_file(refused, tmp_path, shards):
    os.mkfifo(tmp_path / "pipe")
    refused(None, "is no regular file", "pipe")
    (tmp_path / "nothing").symlink_to("/dev/null")
    refused(None, "is no regular file", "nothing")
    os.mkfifo(shards({"weight_map": {"b": "pipe.safetensors"}}) / "pipe.safetensors")
    refused(None, "cannot be read", "folder")


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
