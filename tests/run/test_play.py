"""The page to play with, without a browser: requests become the pictures of the command line, and only the page may ask."""

import base64
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_edit import make_model

import cmcore as cm
from cmcore.generate import generate
from cmcore.model import DataFacts, Model, save_model
from cmcore.networks import ResidualMLP
from cmcore.run import cli
from cmcore.run.page import PAGE, factors
from cmcore.run.pictures import as_pixels
from cmcore.run.play import server
from cmcore.run.play.desk import Desk
from cmcore.run.play.request import Request, read
from cmcore.run.play.server import application, refusal

NUMPY = cm.load("numpy")
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (4, 4, 3)).astype(np.uint8)
NEW = np.zeros((4, 4), np.uint8)
NEW[1:3, 2:] = 255


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def desk(*models):
    return Desk([(f"run {i}", model) for i, model in enumerate(models or (make_model(),))], NUMPY)


@pytest.mark.parametrize("name", cm.recipes.names())
def test_samples_are_those_of_the_command_and_the_way_to_them_is_shown(name):
    model, steps = make_model(name, classes=2), 3
    made = desk(model).answer(Request("sample", n=3, seed=5, steps=steps))
    expected = as_pixels(generate(model, 3, steps=steps, seed=5, backend=NUMPY))
    assert np.array_equal([pixels(one) for one in made.pictures], expected)
    assert len(made.frames) >= steps
    assert {len(pictures) for _, pictures in made.frames} == {3}
    assert len({pictures for _, pictures in made.frames}) == len(made.frames)
    if len(model.recipe.times(2)) == 2:
        # A consistency function's last answer is the sample.
        assert made.frames[-1][1] == made.pictures
        assert (
            made.frames[0][1]
            == desk(model).answer(Request("sample", n=3, seed=5, times=model.recipe.times(3)[:1])).pictures
        )
    assert made.milliseconds > 0


def test_a_label_is_that_of_all_pictures():
    model = make_model(classes=2)
    made = desk(model).answer(Request("sample", n=2, label="b"))
    expected = as_pixels(generate(model, 2, labels=np.array([1, 1]), backend=NUMPY))
    assert np.array_equal([pixels(one) for one in made.pictures], expected)


def test_the_ends_between_two_seeds_are_their_samples():
    one = desk()
    ends = [one.answer(Request("interpolate", seed=3, seed_b=8, share=share)).pictures for share in (0.0, 0.5, 1.0)]
    samples = [one.answer(Request("sample", seed=seed)).pictures for seed in (3, 8)]
    assert [ends[0], ends[2]] == samples
    assert ends[1] not in samples


def test_an_edit_keeps_what_is_known_to_the_bit():
    request = Request("inpaint", n=2, steps=2, picture=png(PIXELS), mask=png(NEW))
    made = [pixels(one) for one in desk().answer(request).pictures]
    for one in made:
        assert np.array_equal(one[NEW == 0], PIXELS[NEW == 0])
        assert not np.array_equal(one, PIXELS)
    assert not np.array_equal(*made)


@pytest.mark.parametrize("task", ["stroke", "variations", "colourise", "upscale"])
def test_other_edits_are_the_editors(task):
    editor = cm.editing.Editor(make_model(), NUMPY)
    x = np.moveaxis(PIXELS, 2, 0) / np.float32(127.5) - 1
    small = x.reshape(3, 2, 2, 2, 2).mean((2, 4))
    expected = {
        "stroke": lambda: editor.stroke(x, 2, seed=1),
        "variations": lambda: editor.variations(x, 2, seed=1),
        "colourise": lambda: editor.colourise(x, 2, seed=1, steps=3),
        "upscale": lambda: editor.upscale(small, 2, 2, seed=1, steps=3),
    }[task]()
    made = desk().answer(Request(task, n=2, seed=1, steps=3, factor=2, picture=png(PIXELS)))
    seen = np.array([pixels(one) for one in made.pictures], int)
    assert np.abs(seen - as_pixels(expected).astype(int)).max() <= 1


WRONG = {
    "no object": ([], "A request is a JSON object"),
    "no task": ({}, "says its task"),
    "unknown task": ({"task": "sampel"}, "did you mean 'sample'"),
    "unknown field": ({"task": "sample", "sede": 1}, "did you mean 'seed'"),
    "no number": ({"task": "sample", "seed": "1"}, "seed must be a whole number"),
    "negative": ({"task": "sample", "seed": -1}, "The seed is from 0"),
    "too many": ({"task": "sample", "n": 17}, "The number of pictures is from 1 to 16"),
    "too long": ({"task": "sample", "steps": 1000}, "The number of steps is from 1 to 100"),
    "increasing": ({"task": "sample", "times": [1.0, 80.0]}, "must decrease"),
    "not finite": ({"task": "sample", "times": [float("nan")]}, "times must be a number"),
    "no run": ({"task": "sample", "model": 2}, "There is no run of number 2"),
    "no picture": ({"task": "stroke"}, "needs a picture"),
    "no mask": ({"task": "inpaint", "picture": "AAAA"}, "needs a mask"),
    "no base64": ({"task": "stroke", "picture": "§"}, "base64"),
    "not a picture": ({"task": "stroke", "picture": "AAAA"}, "The picture is no picture of a kind"),
    "empty mask": (
        {"task": "inpaint", "picture": base64.b64encode(png(PIXELS)).decode(), "mask": base64.b64encode(png(0 * NEW)).decode()},
        "The mask is empty",
    ),
    "odd factor": ({"task": "upscale", "factor": 3, "picture": base64.b64encode(png(PIXELS)).decode()}, "3 times as small"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_request_is_a_sentence(case):
    content, said = WRONG[case]
    with pytest.raises((cm.Error, ValueError), match=re.escape(said)):
        desk().answer(read(content))


def test_labels_and_colours_that_a_model_has_not():
    with pytest.raises(ValueError, match="There is no class 'c'"):
        desk(make_model(classes=2)).answer(Request("sample", label="c"))
    with pytest.raises(cm.Error, match="this one's are grey"):
        desk(make_model(shape=(1, 4, 4))).answer(Request("colourise", picture=png(PIXELS)))
    assert "colourise" not in desk(make_model(shape=(1, 4, 4))).about()["models"][0]["tasks"]
    assert factors((1, 28, 28)) == [2, 4, 7, 14]
    assert factors((1, 7, 5)) == []


def test_points_and_latents_are_shown_by_other_commands():
    model = Model(cm.recipes.get("ct"), ResidualMLP((2,), width=4, blocks=1), {}, DataFacts("points", (2,)))
    with pytest.raises(cm.Error, match="use cmcore sample"):
        Desk([("points", model)], NUMPY)


def test_an_upload_is_fitted_and_told():
    content, said = desk(make_model(shape=(1, 4, 4))).fitted(png(np.zeros((8, 16, 3), np.uint8)), 0)
    assert Image.open(io.BytesIO(content)).size == (4, 4)
    assert said == "The picture was turned from RGB to L, cut to its central part and resized from 16 x 8 to 4 x 4."


@contextmanager
def serving(desk):
    """The address of a server in this process."""
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    running = uvicorn.Server(uvicorn.Config(application(desk), port=0, log_config=None, lifespan="off"))
    bound = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{bound.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(20)
        bound.close()


@pytest.fixture(scope="module")
def address():
    with serving(desk(make_model(), make_model("sct"))) as place:
        yield place


def ask(address, path, body=None, kind="application/json", method=None, **headers):
    """The status, the headers and the content of an answer."""
    connection = HTTPConnection(address, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    if content is not None:
        given["Content-Type"] = kind
    connection.request(method or ("GET" if body is None else "POST"), path, content, given)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    is_json = answer.getheader("content-type", "") == "application/json"
    return answer.status, answer.headers, json.loads(text) if is_json else text


def test_the_page_is_served_and_names_nothing_of_elsewhere(address):
    files = [path for path in PAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {"index.html", "style.css", "app.js", "engine.js"} <= {path.name for path in files}
    for path in files:
        assert not re.search(r"(https?:)?//[a-z]", re.sub(r"^\s*//.*$", "", path.read_text(), flags=re.M)), path
    status, headers, text = ask(address, "/")
    assert status == 200
    assert b"<title>cmcore" in text
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    for name in re.findall(rb'(?:src|href)="([^":]+)"', text):
        assert ask(address, "/" + name.decode())[0] == 200
    for path in PAGE.glob("*.js"):
        for name in re.findall(r'from "\./(.+?)"', path.read_text()):
            assert ask(address, "/" + name)[0] == 200, name
    about = ask(address, "/about.json")[2]
    assert [model["name"] for model in about["models"]] == ["run 0", "run 1"]
    assert ask(address, "/../server.py")[0] == 404


def test_pictures_come_by_http(address):
    status, _, made = ask(address, "/run", {"task": "sample", "n": 2, "seed": 4, "model": 1})
    assert status == 200
    expected = as_pixels(generate(make_model("sct"), 2, seed=4, backend=NUMPY))
    assert np.array_equal([pixels(base64.b64decode(one)) for one in made["pictures"]], expected)
    assert made["milliseconds"] > 0


def test_two_users_at_once_do_not_mix(address):
    def made(seed):
        return ask(address, "/run", {"task": "sample", "seed": seed, "steps": 2, "model": seed % 2})[2]["pictures"]

    alone = [made(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(made, [*range(8)] * 3))
    assert together == alone * 3
    assert len({one for (one,) in alone}) == 8


def test_what_is_wrong_comes_as_a_sentence(address):
    for body, said in (
        (b"{", "A request is JSON"),
        (b"[" * 100_000, "A request is JSON"),
        ({"task": "x"}, "no task 'x'"),
    ):
        status, _, made = ask(address, "/run", body)
        assert (status, said in made["error"]) == (400, True)
    status, _, made = ask(address, "/picture?model=0", b"no picture", "application/octet-stream")
    assert status == 400
    assert made["error"] == "The file is no picture of a kind that can be read, such as a PNG or a JPEG."
    assert ask(address, "/picture?model=x", png(PIXELS), "application/octet-stream")[0] == 400
    assert ask(address, "/picture?model=0", png(PIXELS), "application/octet-stream")[0] == 200
    assert ask(address, "/run", b"{}", "text/plain")[0] == 415
    assert ask(address, "/run")[0] == 405


def test_an_upload_is_bounded(address, monkeypatch):
    monkeypatch.setattr(server, "MOST_BYTES", 1000)
    status, _, made = ask(address, "/picture", b"x" * 5000, "application/octet-stream")
    assert status == 413
    assert "too large" in made["error"]


def test_a_page_of_elsewhere_is_refused(address):
    sample = {"task": "sample"}
    assert ask(address, "/run", sample, Origin=f"http://{address}")[0] == 200
    for headers in (
        {"Host": "elsewhere.example"},
        {"Host": ""},
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": f"https://{address}"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ):
        status, _, made = ask(address, "/run", sample, **headers)
        assert status == 403, headers
        assert made["error"]
    assert ask(address, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200
    assert ask(address, "/", Host="localhost:1")[0] == 200


def test_names_by_which_a_machine_is_asked():
    def asked(host):
        return refusal({b"host": host}, {"localhost", "box"})

    for host in (b"localhost:80", b"box", b"BOX:7", b"192.168.0.7:7860", b"[::1]:7860"):
        assert asked(host) is None, host
    for host in (b"elsewhere.example", b"localhost.elsewhere.example", b"[", b""):
        assert asked(host), host


@pytest.fixture
def run(tmp_path):
    save_model(make_model(), tmp_path / "model.safetensors")
    return str(tmp_path / "model.safetensors")


def test_a_port_that_is_taken_and_more_runs_than_two(run, capsys):
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert cli.main(["play", run, "--backend", "numpy", "--port", str(taken.getsockname()[1])]) == 2
    assert "another program may have it. Choose another with --port" in capsys.readouterr().err
    assert cli.main(["play", run, "--backend", "numpy", "--port", "70000"]) == 2
    assert "A port is a number from 0" in capsys.readouterr().err
    assert cli.main(["play", run, "--backend", "numpy", "--host", "192.0.2.1"]) == 2
    assert "192.0.2.1" in capsys.readouterr().err
    assert cli.main(["play", run, run, run]) == 2
    assert "two are compared; got 3" in capsys.readouterr().err


def test_what_is_not_installed_is_told(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["play", run, "--backend", "numpy"]) == 2
    assert 'pip install "cmcore[play]"' in capsys.readouterr().err


def test_it_says_where_it_is_and_whom_it_lets_in_and_ctrl_c_ends_it_quietly(run):
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(cm.__file__).parents[1]), *sys.path])}
    command = [sys.executable, "-m", "cmcore", "play", run, "--backend", "numpy", "--port", "0", "--host", "0.0.0.0"]
    # What was started in the background of a script inherits that Ctrl-C is ignored.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heard) as process:
        try:
            lines = [process.stderr.readline()]
            while "no password" not in lines[-1] and lines[-1]:
                lines.append(process.stderr.readline())
            port = re.search(r"Open http://127\.0\.0\.1:(\d+)/", "".join(lines))[1]
            assert "everyone who reaches port" in lines[-1]
            assert ask(f"127.0.0.1:{port}", "/run", {"task": "sample"})[0] == 200
            process.send_signal(signal.SIGINT)
            rest = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert rest == "cmcore: interrupted.\n"
