"""Pickles that are meant to harm: each is refused by a sentence within a second and 100 MB, and nothing is executed.

The attacks are shown to work: Python's own unpickler runs every command.
"""

import copyreg
import io
import os
import pickle
import struct
from contextlib import suppress
from functools import partial

import pytest
from attacks import (
    MAGIC,
    expect_refused,
    in_bytes,
    in_old,
    in_pickle,
    in_zip,
    named,
    program,
    storage,
    tensor,
    text,
    tupled,
    whole,
)

pytestmark = pytest.mark.timeout(15)


@pytest.fixture
def refused(tmp_path):
    return partial(expect_refused, tmp_path)


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
    "NEWOBJ": lambda line: b"ctest_hostile_pickles\nRuns\n" + line + b"\x85\x81",
    "NEWOBJ_EX": lambda line: b"ctest_hostile_pickles\nRuns\n" + line + b"\x85}\x92",
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
    if route == "a torch name":
        pytest.importorskip("torch")
    trace = tmp_path / "trace"
    body = ROUTES[route](text(f"touch {trace}"))
    with suppress(Exception):
        Python(io.BytesIO(program(body))).load()
    assert trace.exists(), "The attack does not work at all."
    trace.unlink()
    for place in PLACES.values():
        refused(place(body), "cannot be read|no weights")
        assert not trace.exists()


@pytest.mark.parametrize("opcode", ["INST", "OBJ", "EXT1", "EXT2", "EXT4", "PERSID"])
def test_opcodes_that_have_no_place_among_tensors(opcode, refused):
    # Read as a value, each would be plain data: a name or a number.
    refused(program(named(ROUTES[opcode](text("true")))), f"its opcode {opcode} has no place")


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
    "two to the 200 pairs, as a class": lambda: in_zip(named(PAIRS + b"2\x93)R")),
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
    "many long axes": b"(" + whole(2**40) * 60_000 + b"t",
    "no tuple": whole(4),
}


@pytest.mark.parametrize("wrap", [in_zip, in_old])
@pytest.mark.parametrize("name", BAD_SHAPES)
def test_shapes_that_lie(name, wrap, refused):
    shape = BAD_SHAPES[name]
    count = shape.count(b"\x8a\x10") or 1
    for stride in (0, 1, 2**40):
        # The same number five times is a tensor.
        honest = name == "more than the storage" and stride == 0
        lie = named(tensor(shape=shape, strides=tupled(*[whole(stride)] * count)))
        refused(wrap(lie), "The layout of" if honest else "cannot be read")


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
