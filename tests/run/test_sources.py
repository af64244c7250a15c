"""Pictures in archives and tables: the same as from the folder that they were made of, and nothing that harms."""

import io
import json
import os
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from cmcore import Error
from cmcore.run.data import load, tables, unpacking

RNG = np.random.default_rng(0)
NAMES = ["cat/2.png", "cat/10.png", "dog/é.png", "dog/a b.jpg"]


@pytest.fixture
def pets(tmp_path):
    for name in NAMES:
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (9, 8, 3), np.uint8)).save(tmp_path / "pets" / name)
    return tmp_path / "pets"


def notes_of(source, **options):
    notes = []
    return load(str(source), note=notes.append, **options), "\n".join(notes)


def zipped(folder, path, root="", more=(), pack=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", pack) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, root + file.relative_to(folder).as_posix())
        for name, content in more:
            archive.writestr(name, content)
    return path


def tarred(folder, path, root="", more=(), mode="w"):
    with tarfile.open(path, mode) as archive:
        for file in sorted(folder.rglob("*.*"), reverse=True):
            archive.add(file, root + file.relative_to(folder).as_posix())
        for name, content in more:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


PACK = {"zip": zipped, "tar": tarred}


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("root", ["", "photos/", "./", "a/b/"])
@pytest.mark.parametrize("cache", ["none", None])
def test_an_archive_is_its_folder(pets, tmp_path, kind, root, cache):
    expected = load(str(pets), classes=True, cache="none")
    path = PACK[kind](pets, tmp_path / f"a.{kind}", root)
    for _ in range(2):
        data = load(str(path), classes=True, cache=cache)
        assert data.x.tobytes() == expected.x.tobytes()
        assert (data.labels.tolist(), data.classes) == ([0, 0, 1, 1], ("cat", "dog"))
    PACK[kind](pets, path, root, [("cat/3.png", (pets / "cat" / "2.png").read_bytes())] if not root else [])
    assert len(load(str(path), cache=cache)) == (4 if root else 5)


@pytest.mark.parametrize("kind", PACK)
def test_what_else_is_in_an_archive_is_told(pets, tmp_path, kind):
    more = [("__MACOSX/cat/._2.png", b"x"), (".hidden/a.png", b"x"), ("notes.txt", b"x"), ("bad.png", b"nonsense")]
    path = PACK[kind](pets, tmp_path / f"a.{kind}", more=more)
    with pytest.raises(Error, match=rf"1 of 5 files .*a.{kind}/bad.png .*--skip-broken"):
        load(str(path))
    data, notes = notes_of(path, skip_broken=True)
    assert len(data) == 4
    assert "Skipped 1 .txt" in notes


@pytest.mark.parametrize("kind", PACK)
def test_labels_of_an_archive_are_its_dataset_json(pets, tmp_path, kind):
    listed = json.dumps({"labels": [[name, 3 * index] for index, name in enumerate(NAMES)]})
    path = PACK[kind](pets, tmp_path / f"a.{kind}", more=[("dataset.json", listed.encode())])
    data = load(str(path), classes=True)
    assert [data.classes[label] for label in data.labels] == ["3", "0", "9", "6"]


def test_archives_that_cannot_be_used(pets, tmp_path):
    whole = zipped(pets, tmp_path / "a.zip").read_bytes()
    for name, content, told in (
        ("b.zip", whole[:-30], "cannot be read as an archive"),
        ("c.zip", b"", "cannot be read as an archive"),
        ("b.tar", tarred(pets, tmp_path / "a.tar").read_bytes()[100:], "cannot be read as an archive"),
        ("c.tar.gz", tarred(pets, tmp_path / "a.tgz", mode="w:gz").read_bytes(), "packed as a whole"),
        ("d.tar", tarred(pets, tmp_path / "a.xz", mode="w:xz").read_bytes(), "packed as a whole"),
        ("e.zip", zipped(tmp_path / "nothing", tmp_path / "n.zip").read_bytes(), "holds no images"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Error, match=told):
            load(str(tmp_path / name))
    encrypted = bytearray(whole)
    encrypted[encrypted.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "f.zip").write_bytes(encrypted)
    with pytest.raises(Error, match="is encrypted; unpack it"):
        load(str(tmp_path / "f.zip"))


def test_an_archive_cut_within_a_picture_names_it(pets, tmp_path):
    path = tarred(pets, tmp_path / "a.tar")
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    content = path.read_bytes()
    path.write_bytes(content[: last.offset_data + 20])
    with pytest.raises(Error, match=r"cannot be read|ends within it"):
        load(str(path))


def test_bombs_are_refused_before_anything_is_unpacked(pets, tmp_path, monkeypatch):
    path = zipped(pets, tmp_path / "a.zip", more=[("bomb.png", bytes(10**7))], pack=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(unpacking, "SPARE", 10**6)
    monkeypatch.setattr("zipfile.ZipFile.read", None)
    with pytest.raises(Error, match="unpacks to"):
        load(str(path))


def test_links_in_tars_lead_nowhere(pets, tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(pets / "cat" / "2.png", "0.png")
        archive.add(pets / "cat" / "10.png", "1.png")
        for kind, name in (
            (tarfile.SYMTYPE, "link.png"),
            (tarfile.CHRTYPE, "device.png"),
            (tarfile.FIFOTYPE, "pipe.png"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert len(load(str(path))) == 2


# Tables of paths


def table(folder, text, name="list.csv"):
    (folder / name).write_bytes(text.encode("utf-8-sig"))
    return folder / name


def test_a_table_of_paths_is_read_in_its_order(pets):
    folder = load(str(pets), cache="none")
    path = table(pets, "id,Path,Class\n1,dog/é.png,b\n2,cat/10.png,a\n3,dog/é.png,b\n")
    data = load(str(path), classes=True)
    assert data.x.tobytes() == folder.x[[3, 0, 3]].tobytes()
    assert (data.labels.tolist(), data.classes) == ([1, 0, 1], ("a", "b"))
    absolute = table(pets.parent, f"file\tlabel\n{pets / 'cat/2.png'}\t10\npets/cat/10.png\t9\n", "l.tsv")
    assert load(str(absolute)).x.tobytes() == folder.x[[1, 0]].tobytes()
    assert load(str(absolute), classes=True).classes == ("9", "10")


def test_labels_follow_what_is_left_of_a_table(pets):
    path = table(pets, "path,label\ncat/2.png,a\nnowhere.png,b\ndog/é.png,c\n")
    data = load(str(path), classes=True, skip_broken=True)
    assert (len(data), data.labels.tolist(), data.classes) == (2, [0, 1], ("a", "c"))


def test_a_changed_table_is_not_taken_for_what_it_was(pets):
    path = table(pets, "path\ncat/2.png\ndog/é.png\n")
    first = load(str(path)).x
    table(pets, "path\ndog/é.png\ncat/2.png\n")
    assert load(str(path)).x.tobytes() == first[::-1].tobytes()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must name its columns"),
        ("a,b\n1,2\n", "must name its columns.*it is 'a, b'"),
        ("path\n", "names no images"),
        ("path,label\ncat/2.png\n", "Line 2 of .* has 1 columns, and its first line 2"),
        ("path\ncat/2.png\nnowhere.png\n", "1 of 2 files .*nowhere.png"),
        ("path\ncat/2.png\npipe\n", "it is no file"),
        ("path\ncat/2.png\ncat\n", "it is no file"),
        ("path,label\ncat/2.png,a\ncat/10.png,\n", "1 of the 2 pictures .* have no label"),
    ],
)
def test_tables_that_cannot_be_used(pets, text, told):
    os.mkfifo(pets / "pipe")
    with pytest.raises(Error, match=told):
        load(str(table(pets, text)), classes="label" in text)


def test_a_table_that_is_no_text_is_a_sentence(pets):
    (pets / "a.csv").write_bytes(b"path\n\xff\xfe\n")
    with pytest.raises(Error, match="cannot be read as a table of paths"):
        load(str(pets / "a.csv"))


# Parquet and Arrow


def schema_of(arrow, names):
    image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    return arrow.schema([("image", image), ("label", arrow.int64())], metadata=about)


def contents(pets):
    return [(pets / name).read_bytes() for name in NAMES]


def arrow_table(arrow, pets, labels=(0, 0, 1, 1)):
    rows = [{"image": {"bytes": b, "path": None}, "label": n} for b, n in zip(contents(pets), labels, strict=True)]
    return arrow.Table.from_pylist(rows, schema_of(arrow, ["cat", "dog"]))


@pytest.fixture
def arrow():
    pytest.importorskip("pyarrow.parquet")
    import pyarrow

    return pyarrow


def saved(arrow, pets, place, kind):
    made = arrow_table(arrow, pets)
    if kind == "parquet":
        arrow.parquet.write_table(made, place / "a.parquet", row_group_size=3)
        return place / "a.parquet"
    if kind == "repository":
        (place / "hub" / "data").mkdir(parents=True)
        for number in range(2):
            part = made.slice(2 * number, 2)
            arrow.parquet.write_table(part, place / "hub" / "data" / f"train-0000{number}-of-00002.parquet")
        arrow.parquet.write_table(made.slice(0, 1), place / "hub" / "data" / "test-00000-of-00001.parquet")
        return place / "hub"
    if kind == "dictionary":
        (place / "dict" / "train").mkdir(parents=True)
        (place / "dict" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    folder = place / "dict" / "train" if kind == "dictionary" else place / "saved"
    folder.mkdir(exist_ok=True)
    file = folder / "data-00000-of-00001.arrow"
    opener = arrow.ipc.new_file if kind == "file" else arrow.ipc.new_stream
    with opener(str(file), made.schema) as out:
        out.write_table(made, max_chunksize=3)
    return place / "dict" if kind == "dictionary" else folder


@pytest.mark.parametrize("kind", ["parquet", "repository", "stream", "file", "dictionary"])
def test_tables_of_images_are_read(arrow, pets, tmp_path, kind):
    data = load(str(saved(arrow, pets, tmp_path, kind)), classes=True)
    expected = load(str(pets), cache="none").x[[1, 0, 3, 2]]
    assert data.x.tobytes() == expected.tobytes()
    assert (data.labels.tolist(), data.classes) == ([0, 0, 1, 1], ("cat", "dog"))


def test_bare_bytes_and_labels_of_any_kind_are_read(arrow, pets, tmp_path):
    made = arrow.table({"jpg": contents(pets), "class": ["x", "y", "x", "z"]})
    arrow.parquet.write_table(made, tmp_path / "a.parquet")
    data = load(str(tmp_path / "a.parquet"), classes=True)
    assert (data.labels.tolist(), data.classes) == ([0, 1, 0, 2], ("x", "y", "z"))


def test_tables_of_images_that_cannot_be_used(arrow, pets, tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    arrow.parquet.write_table(arrow_table(arrow, pets, (0, 0, 1, 2)), path)
    with pytest.raises(Error, match=r"must lie in \[0, 2\)"):
        load(str(path), classes=True)
    arrow.parquet.write_table(arrow_table(arrow, pets, (0, 0, 1, None)), path)
    with pytest.raises(Error, match="have no label"):
        load(str(path), classes=True)
    arrow.parquet.write_table(arrow.table({"text": ["a"]}), path)
    with pytest.raises(Error, match=r"no column of images, .*; it has text"):
        load(str(path))
    arrow.parquet.write_table(arrow.table({"image": [*contents(pets), b"nonsense", None]}), path, row_group_size=3)
    with pytest.raises(Error, match=r"2 of 6 files .*a.parquet:4 .*a.parquet:5 \(the table has no bytes for it\)"):
        load(str(path))
    assert len(load(str(path), skip_broken=True)) == 4
    arrow.parquet.write_table(arrow.table({"image": [bytes(10**7)] * 2}), path, compression="zstd")
    with monkeypatch.context() as patch:
        patch.setattr(unpacking, "SPARE", 10**6)
        with pytest.raises(Error, match="unpacks to"):
            load(str(path))
    for content in (b"", b"nonsense", path.read_bytes()[:-9]):
        for name in ("a.parquet", "a.arrow"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(Error, match="cannot be read as a table"):
                load(str(tmp_path / name))


def test_what_reads_tables_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"x")
    monkeypatch.setattr(tables, "find_spec", lambda _: None)
    with pytest.raises(Error, match=r'pip install "cmcore\[parquet\]"'):
        load(str(tmp_path / "a.parquet"))
