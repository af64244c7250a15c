"""cmcore report: what the page holds, told by parsing it; what it does is in test_html_browser.py."""

import base64
import io
import json
import shlex
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from toy import make_data

from cmcore.run import cli, html
from cmcore.run.config import Config
from cmcore.run.csv_file import read_columns
from cmcore.run.folder import RunFolder
from cmcore.run.html import film, neighbours, plots
from cmcore.run.html.settings import command
from cmcore.run.pictures import as_pixels, grid, save_png
from cmcore.run.train import train

EVAL = {
    "data": "toy",
    "n": 10,
    "rows": [
        {"name": "1 step", "nfe": 1, "frechet": 3.0, "sliced": None, "kid": {"mean": 0.5, "std": 0.1}, "ms": 1.0},
        {"name": "2 <steps>", "nfe": 2, "frechet": 2.0, "sliced": None, "kid": {"mean": 0.25, "std": 0.1}, "ms": 1.0},
        {"name": "real data", "nfe": None, "frechet": 1.0, "sliced": None, "kid": {"mean": 0.125, "std": 0.1}},
    ],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    pytest.importorskip("torch")
    out = tmp_path_factory.mktemp("runs") / "a <run>"
    settings = {"backend": "torch", "compiled": False, "recipe": "ict", "width": 4, "blocks": 1, "batch": 16}
    train(Config(**settings, steps=6, sample_every=2, options={"decay": True}), make_data(), out=out)
    (out / "eval.json").write_text(json.dumps(EVAL))
    return out


class Page(HTMLParser):
    """The elements of a page, each (tag, attributes), and the text in each kind of element."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append(tag)
        self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        for tag in self._open[-1:]:
            self.text[tag][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(run):
    return Page(html.page(RunFolder(run), make_data()))


def test_nothing_is_asked_for_from_elsewhere(page):
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert links
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert not page.all("link")
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    style = page.text["style"][0]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_every_picture_says_what_it_is(page):
    assert page.all("img")
    assert all(image["alt"] for image in page.all("img"))
    drawn = [svg for svg in page.all("svg") if svg["role"] == "img"]
    assert len(drawn) == len(page.all("svg"))
    assert all(svg["aria-label"] for svg in drawn)
    (scrubber,) = [i for i in page.all("input") if i["type"] == "range"]
    assert scrubber["aria-label"] == "Training step"


def test_the_film_holds_every_grid(page, run):
    frames = json.loads(next(t for t in page.text["script"] if "data:image" in t))
    assert [frame["step"] for frame in frames] == [2, 4, 6]
    for frame in frames:
        kept = (run / "samples" / f"step-{frame['step']:08d}.png").read_bytes()
        assert base64.b64decode(frame["src"].partition(",")[2]) == kept


def test_sections_and_plots(page):
    titles = page.text["h2"]
    assert titles == [
        "Samples", "Training loss", "Schedules", "Quality", "Nearest training pictures", "Settings", "How to cite",
    ]  # fmt: skip
    plotted = page.text["h3"]
    assert {"All times", "By the time t", "Learning rate", "Decay of the average", "Frechet distance", "KID"} <= {
        *plotted
    }
    assert "Sliced Wasserstein distance" not in plotted
    told = [svg["aria-label"] for svg in page.all("svg")]
    assert "KID against network evaluations: 0.5 at 1, 0.25 at 2" in told
    assert page.text["h1"] == ["a <run>"]
    assert any("song2024improved" in text and "@software{cmcore" in text for text in page.text["pre"])
    assert "2 <steps>" in page.text["th"]


def test_old_runs_without_the_newer_files_have_a_page(run, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    bare = Page(html.page(RunFolder(tmp_path)))
    assert bare.text["h2"] == ["Samples", "Training loss", "Quality", "Settings", "How to cite"]
    (tmp_path / "log.csv").write_bytes((run / "log.csv").read_bytes())
    (tmp_path / "other.json").write_text("[" * 100_000)
    logged = Page(html.page(RunFolder(tmp_path)))
    assert "All times" in logged.text["h3"]
    assert "By the time t" not in logged.text["h3"]


def test_a_grid_gives_its_pictures_back(tmp_path):
    for shape in ((1, 8, 8), (3, 5, 9), (3, 32, 32)):
        x = np.random.default_rng(0).uniform(-1, 1, (9, *shape)).astype(np.float32)
        save_png(grid(x), tmp_path / "grid.png")
        np.testing.assert_array_equal(film.tiles(tmp_path / "grid.png", shape, 7), as_pixels(x[:7]))


def test_neighbours_are_those_of_a_search_through_all(monkeypatch):
    monkeypatch.setattr(neighbours, "PIECE", 7)
    data = make_data((3, 4, 4), 40)
    samples = as_pixels(np.random.default_rng(5).uniform(-1, 1, (6, 3, 4, 4)).astype(np.float32))
    samples[2] = as_pixels(data.x[11:12])[0]
    found = neighbours.nearest(samples, data)
    grey = 127.5 * (data.x.astype(np.float64) + 1)
    for i, sample in enumerate(np.moveaxis(samples.astype(np.float64), 3, 1)):
        apart = np.sqrt(((grey - sample) ** 2).mean((1, 2, 3)))
        assert found.index[i] == apart.argmin()
        assert found.distance[i] == pytest.approx(apart.min(), rel=1e-9)
        others = np.sqrt(((grey - grey[found.index[i]]) ** 2).mean((1, 2, 3)))
        assert found.own[i] == pytest.approx(np.sort(others)[1], rel=1e-9)
    assert found.index[2] == 11
    assert found.distance[2] < 0.5
    assert found.nearer == int((found.distance < found.own).sum()) >= 1


def test_axes_place_values_where_their_ticks_are():
    x = np.array([0.0, 40.0, 80.0])
    text = plots.plot("Loss", "about", x, [plots.Series("loss", np.array([1.0, 10.0, 100.0]))], "step", log_y=True)
    page = Page(text)
    (path,) = [p["d"] for p in page.all("path")]
    points = [tuple(map(float, p.split())) for p in path.removeprefix("M").split("L")]
    labels = {t: a for t, a in zip(page.text["text"], page.all("text"), strict=True)}
    for (across, up), named in zip(points, ("1", "10", "100"), strict=True):
        assert abs(up + 4 - float(labels[named]["y"])) < 0.2
        assert plots.LEFT <= across <= plots.WIDTH - plots.RIGHT
    # Equal ratios are equally far apart.
    assert points[0][1] - points[1][1] == pytest.approx(points[1][1] - points[2][1], abs=0.11)


def test_missing_values_leave_gaps():
    y = np.array([1.0, 2.0, np.nan, 3.0, 4.0])
    page = Page(plots.plot("p", "about", np.arange(5.0), [plots.Series("s", y)], "step"))
    assert [len(p["d"].split("L")) for p in page.all("path")] == [2, 2]
    assert plots.plot("p", "about", np.arange(2.0), [plots.Series("s", np.full(2, np.nan))], "step") == ""


def test_damaged_tables_are_read_as_far_as_they_go(tmp_path):
    path = tmp_path / "log.csv"
    assert read_columns(path) == {}
    path.write_text("step,loss\n1,2.5\nx,y\n2,\n3,4")
    columns = read_columns(path)
    assert columns["step"] == [1.0, 2.0]
    assert columns["loss"][0] == 2.5
    assert np.isnan(columns["loss"][1])
    path.write_text("")
    assert read_columns(path) == {}


def test_the_command_can_be_typed():
    config = Config(
        data="my photos", recipe="ict", options={"lr": 0.1, "decay": True}, size=(8, 16), range=(0.0, 1.0),
        fast_jpegs=False, classes=True, compiled=False, network_settings={"width": 8},
    )  # fmt: skip
    words = cli._parser().parse_args(shlex.split(command(config))[1:])
    assert (words.data, words.recipe, words.size, words.range) == ("my photos", "ict", (8, 16), (0.0, 1.0))
    assert (words.fast_jpegs, words.classes, words.compiled) == (False, True, False)
    assert words.set == ["lr=0.1", "decay=true"]
    assert words.set_network == ["width=8"]


def test_the_program_writes_it_and_overwrites_nothing_else(run, tmp_path, capsys):
    assert cli.main(["report", str(run)]) == 0
    assert "The report is in" in capsys.readouterr().err
    assert cli.main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "Nearest training pictures" not in page
    other = tmp_path / "mine.html"
    other.write_text("<p>mine</p>")
    assert cli.main(["report", str(run), "--out", str(other)]) == 2
    assert "exists already and is no report" in capsys.readouterr().err
    assert other.read_text() == "<p>mine</p>"
    assert cli.main(["report", str(run), "--out", str(tmp_path / "page.txt")]) == 2
    assert "A report is an .html file, not page.txt" in capsys.readouterr().err
    assert cli.main(["report", str(tmp_path / "none")]) == 2
    assert "There is no run in" in capsys.readouterr().err


def test_data_that_are_not_the_runs_are_refused(run, tmp_path, capsys):
    x = np.random.default_rng(3).integers(0, 255, (20, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    assert cli.main(["report", str(run), "--data", str(tmp_path / "x.npy"), "--out", str(tmp_path / "r.html")]) == 2
    assert "is not what the run was trained on" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_frames_are_thinned_to_the_last(tmp_path):
    for step in range(1, 151):
        Image.new("L", (2, 2)).save(tmp_path / f"step-{step:08d}.png")
    page = Page(film.film(film.grids(tmp_path), 1))
    frames = json.loads(page.text["script"][0])
    assert len(frames) == film.FRAMES
    assert (frames[0]["step"], frames[-1]["step"]) == (1, 150)
    with Image.open(io.BytesIO(base64.b64decode(frames[-1]["src"].partition(",")[2]))) as image:
        assert image.size == (2, 2)
