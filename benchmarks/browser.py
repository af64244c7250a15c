"""The whole walk through ``cmcore play`` in a headless Chromium, with screenshots: python benchmarks/browser.py RUN --out FOLDER.
With ``--web FOLDER``, what ``cmcore export RUN --to web`` wrote is walked through as well.

Samples, a class, steps one by one, a mask, a stroke, an edit, a slider between two seeds, two runs side by side, a wrong
upload, a phone, the dark, the keyboard, two tabs at once; and that nothing is asked for of any other address.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from chromium import Browser, Tab, browser

Shot = Callable[[str, Tab], None]

IDLE = "!document.querySelector('#busy').textContent"


def walk(chromium: Browser, url: str, shot: Shot = lambda name, tab: None) -> dict[str, Any]:
    """Walk through a page of two runs with classes, and return what was seen."""
    told: dict[str, Any] = {}
    tab = chromium.tab(url)
    tab.until("document.querySelectorAll('#sample .tile').length === 18")
    told["first"] = _sources(tab, "sample")
    shot("sample", tab)

    tab.fill("#sample [name=steps]", "2")
    tab.fill("#sample [name=n]", "4")
    tab.run("document.querySelector('#sample [name=label]').selectedIndex = 2")
    _done(tab, lambda: tab.click("#sample .primary"))
    told["labelled"] = _sources(tab, "sample")
    tab.fill("#sample .frames input", "0")
    told["evaluation"] = tab.run("document.querySelector('#sample .frames').textContent.trim()")
    told["evaluated"] = _sources(tab, "sample")
    told["took"] = tab.run("[...document.querySelectorAll('#sample output')].map((o) => o.textContent)")
    shot("evaluations", tab)
    tab.click("#sample .tile")
    _done(tab, lambda: tab.run("document.querySelector('#sample .picked button').click()"))
    told["taken"] = tab.run("document.querySelector('#edit [name=label]').selectedIndex")

    before = tab.run("document.querySelector('#board canvas').toDataURL()")
    _done(tab, lambda: tab.drag("#board", [(0.3, 0.5), (0.5, 0.6), (0.7, 0.5)]))
    told["inpainted"] = _sources(tab, "edit")
    told["masked"] = tab.run(
        "[...document.querySelector('#board .mask').getContext('2d').getImageData(0, 0, 999, 999).data].filter((v, i) => i % 4 === 3 && v).length"
    )
    told["kept"] = tab.run("document.querySelector('#board canvas').toDataURL()") == before
    shot("inpaint", tab)
    tab.run("document.querySelector('#edit [value=stroke]').click()")
    _done(tab, lambda: tab.drag("#board", [(0.2, 0.2), (0.8, 0.3)]))
    told["stroked"] = _sources(tab, "edit")
    told["painted"] = tab.run("document.querySelector('#board canvas').toDataURL()") != before
    shot("stroke", tab)
    tab.run("document.querySelector('#clear').click()")
    told["cleared"] = tab.run("document.querySelector('#board canvas').toDataURL()") == before

    with tempfile.TemporaryDirectory() as folder:
        wrong = Path(folder) / "notes.png"
        wrong.write_text("no picture")
        tab.offer("#file", wrong)
        tab.until("!document.querySelector('#problem').hidden")
    told["problem"] = tab.run("document.querySelector('#problem').textContent")
    shot("wrong", tab)

    _done(tab, lambda: tab.click("#tab-interpolate"))
    tab.until("document.querySelectorAll('#interpolate .ends img').length === 4")
    told["between"] = []
    for share in ("0", "50", "100"):
        _done(tab, lambda share=share: tab.fill("#interpolate [name=share]", share))
        told["between"].append(_sources(tab, "interpolate")[0])
    told["ends"] = tab.run("[...document.querySelectorAll('#interpolate .ends img')].map((i) => i.src)")
    shot("interpolate", tab)

    told["keyboard"] = _by_keyboard(chromium.tab(url))
    told["tabs"] = _two_tabs(chromium, url)
    for name, width, dark in (("phone", 390, False), ("phone-dark", 390, True), ("dark", 1100, True)):
        narrow = chromium.tab(url, width, 844 if width < 600 else 900, dark)
        narrow.until("document.querySelectorAll('#sample .tile').length === 18")
        shot(name, narrow)
        told[name] = {"sample": _fits(narrow)}
        narrow.run("document.querySelector('#edit [value=inpaint]').click()")
        _done(narrow, lambda narrow=narrow: narrow.click("#tab-edit"))
        _done(narrow, lambda narrow=narrow: narrow.drag("#board", [(0.3, 0.5), (0.7, 0.5)]))
        shot(f"{name}-edit", narrow)
        told[name]["edit"] = _fits(narrow)
        told[name]["background"] = narrow.run("getComputedStyle(document.body).backgroundColor")
        told["complaints"] = told.get("complaints", []) + narrow.complaints()
    told["complaints"] += [c for c in tab.complaints() if "/picture" not in c]
    told["foreign"] = foreign(chromium, url)
    return told


def walk_alone(
    chromium: Browser, url: str, asked: list[dict[str, Any]], shot: Shot = lambda name, tab: None
) -> dict[str, Any]:
    """Walk through an exported page, and return what was seen, and the numbers of the pictures of the requests that are ``asked``."""
    told: dict[str, Any] = {}
    tab = chromium.tab(url)
    tab.until("document.querySelectorAll('#sample .tile').length === 9")
    # From here on there is no network at all but for the model's second file, which is loaded now.
    tab.run(
        "import('./engine.js').then((e) => e.run({task: 'variations', seed: 0, n: 1, picture: document.createElement('canvas').toDataURL('image/png').split(',')[1]})).then(() => 0)"
    )
    tab.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
    shot("web-sample", tab)
    told["values"] = [
        tab.run(
            f"import('./engine.js').then((e) => e.run({json.dumps(one)})).then((m) => m.values.map((v) => Array.from(v)))"
        )
        for one in asked
    ]
    _done(tab, lambda: tab.click("#tab-edit"))
    _done(tab, lambda: tab.drag("#board", [(0.3, 0.5), (0.5, 0.6), (0.7, 0.5)]))
    told["inpainted"] = _sources(tab, "edit")
    shot("web-inpaint", tab)
    _done(tab, lambda: tab.click("#tab-interpolate"))
    tab.until("document.querySelectorAll('#interpolate .ends img').length === 2")
    told["between"] = []
    for share in ("0", "50", "100"):
        _done(tab, lambda share=share: tab.fill("#interpolate [name=share]", share))
        told["between"] += _sources(tab, "interpolate")
    told["problem"] = tab.run("document.querySelector('#problem').textContent")
    told["complaints"] = tab.complaints()
    told["foreign"] = foreign(chromium, url)
    return told


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Give the address at which a plain server has a folder's files."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def foreign(chromium: Browser, url: str) -> list[str]:
    """Return the addresses that any page has asked for and that are not below this one."""
    asked = [e["params"]["request"]["url"] for e in chromium.events if e["method"] == "Network.requestWillBeSent"]
    return [one for one in asked if not one.startswith((url, "data:", "blob:"))]


def _by_keyboard(tab: Tab) -> dict[str, Any]:
    """Only keys: to the tab of edits, onto the board, and a mask."""
    tab.until("document.querySelectorAll('#sample .tile').length === 18")
    for _ in range(20):
        tab.press("Tab")
        if tab.run("document.activeElement.id") == "tab-sample":
            break
    _done(tab, lambda: tab.press("ArrowRight"))
    opened = tab.run("!document.querySelector('#edit').hidden")
    tab.press("Tab")
    on = tab.run("document.activeElement.id")
    _done(tab, lambda: tab.press(" "))
    for _ in range(2):
        _done(tab, lambda: tab.press("ArrowRight", shift=True))
    return {"opened": opened, "on": on, "made": len(_sources(tab, "edit"))}


def _two_tabs(chromium: Browser, url: str) -> list[list[str]]:
    """Two visitors ask at once, each for a seed of his own; what each sees, and what each sees alone."""
    tabs = [chromium.tab(url) for _ in range(2)]
    for tab in tabs:
        tab.until(f"document.querySelectorAll('#sample .tile').length === 18 && {IDLE}")
    for seed, tab in enumerate(tabs, 21):
        tab.fill("#sample [name=seed]", str(seed))
        tab.run("document.querySelector('#sample .primary').click()")
    for tab in tabs:
        tab.until(IDLE)
    together = [_sources(tab, "sample") for tab in tabs]
    for tab in tabs:
        _done(tab, lambda tab=tab: tab.click("#sample .primary"))
    return together + [_sources(tab, "sample") for tab in tabs]


def _done(tab: Tab, act: Callable[[], object]) -> None:
    """Do something, and wait until the page is idle again and its pictures are drawn."""
    act()
    tab.run("new Promise((done) => setTimeout(done, 50))")
    tab.until(IDLE)


def _sources(tab: Tab, panel: str) -> list[str]:
    found: list[str] = tab.run(f"[...document.querySelectorAll('#{panel} .tile img')].map((i) => i.src)")
    return found


def _fits(tab: Tab) -> bool:
    """Whether nothing is wider than the screen, and what can be pressed is large enough for a finger."""
    fits: bool = tab.run(
        "document.documentElement.scrollWidth <= innerWidth && [...document.querySelectorAll('button, select')]"
        ".filter((b) => b.offsetParent && !b.classList.contains('tile')).every((b) => b.offsetHeight >= 36 && b.getBoundingClientRect().right <= innerWidth)"
    )
    return fits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="+", help="one or two runs with classes")
    parser.add_argument("--out", type=Path, required=True, help="the folder for the screenshots")
    parser.add_argument("--web", type=Path, help="the folder of an exported page")
    parser.add_argument("--backend", default="torch")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    runs = (args.run * 2)[:2]
    command = [sys.executable, "-m", "cmcore", "play", *runs, "--backend", args.backend, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, browser() as chromium:
        assert server.stderr is not None
        url = next(found[0] for line in server.stderr if (found := re.search(r"http://\S+/", line)))

        def shot(name: str, tab: Tab) -> None:
            (args.out / f"{name}.png").write_bytes(tab.screenshot())

        told = walk(chromium, url, shot)
        server.terminate()
    if args.web:
        with served(args.web) as url, browser() as chromium:
            told |= {f"web {name}": seen for name, seen in walk_alone(chromium, url, [], shot).items()}
    for name, seen in told.items():
        print(f"{name}: {f'{len(seen)} of them' if isinstance(seen, list) and len(str(seen)) > 300 else seen}")


if __name__ == "__main__":
    main()
