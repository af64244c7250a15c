"""The report in a browser: no request leaves it, its film scrubs, its plots are drawn. Skipped where there is no Chromium."""

import json
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np
import pytest
from toy import make_data

from cmcore.model import DataFacts
from cmcore.networks import ResidualMLP
from cmcore.recipes import get
from cmcore.run import html
from cmcore.run.config import Config
from cmcore.run.csv_file import CsvFile
from cmcore.run.folder import RunFolder
from cmcore.run.pictures import grid, save_png
from cmcore.run.plan import Plan, fingerprint

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt install chromium)")

OWN = ("accounts.google.com", "clients2.google.com", "www.google.com", "update.googleapis.com")
"""Where Chromium asks for the time, its own updates and the like, whatever page it shows."""

QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage",
    "--proxy-bypass-list=<-loopback>", "--virtual-time-budget=6000",
]  # fmt: skip

DRIVE = """
<script>
const told = {}, bar = document.getElementById("scrub"), image = document.getElementById("frame");
const look = () => ({alt: image.alt, src: image.src.length, at: document.getElementById("at").textContent,
                     said: bar.getAttribute("aria-valuetext"), wide: image.naturalWidth});
const to = async (value) => { bar.value = value; bar.dispatchEvent(new Event("input", {bubbles: true})); await new Promise((r) => setTimeout(r, 200)); return look(); };
(async () => {
  told.first = await to(0);
  told.second = await to(1);
  told.last = await to(2);
  document.getElementById("play").click();
  told.played = [document.getElementById("at").textContent];
  for (let i = 0; i < 3; i++) { await new Promise((r) => setTimeout(r, 700)); told.played.push(document.getElementById("at").textContent); }
  told.plots = [...document.querySelectorAll(".plot svg")].map((svg) => {
    const line = svg.querySelector("path.line"), box = svg.getBoundingClientRect();
    svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.right - 1, clientY: box.top + 5}));
    return {length: line.getTotalLength(), stroke: getComputedStyle(line).stroke, high: box.height, wide: box.width,
            said: svg.closest("figure").querySelector("output").textContent};
  });
  told.scrolls = document.documentElement.scrollWidth > innerWidth;
  told.loaded = performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !n.startsWith("data:"));
  const out = document.createElement("pre");
  out.id = "told";
  out.textContent = JSON.stringify(told);
  document.body.append(out);
})();
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a run that was not trained but made up, for which no backend is needed."""
    folder, data = RunFolder(tmp_path_factory.mktemp("runs") / "run"), make_data()
    facts = DataFacts("toy", (1, 4, 4), images=True, fingerprint=fingerprint(data))
    plan = Plan(get("ect"), ResidualMLP((1, 4, 4), width=4, blocks=1), facts)
    folder.samples.mkdir(parents=True)
    folder.write(Config(backend="torch", steps=30), plan, {"cmcore": "0"})
    log, by_time = CsvFile(folder.log, 0), CsvFile(folder.by_time, 0)
    for step in range(1, 31):
        log.add({"step": step, "loss": 1 / step, "lr": 0.1 * step, "images_per_second": 9.0, "seconds": 1.0 * step})
        by_time.add({"step": step, "0 to 1": 2 / step, "1 to 80": 0.5 / step})
    for step in (10, 20, 30):
        x = np.random.default_rng(step).uniform(-1, 1, (64, 1, 4, 4)).astype(np.float32)
        save_png(grid(x), folder.picture(step))
    return html.page(folder, data)


class Proxy(BaseHTTPRequestHandler):
    """Takes down what a browser asks for, whatever it is."""

    def do_GET(self):
        host = urlsplit(self.path if "://" in self.path else f"//{self.path}").hostname
        if host not in OWN:
            self.server.asked.append(self.path)
        self.send_error(404)

    do_CONNECT = do_POST = do_GET

    def log_message(self, *arguments):
        pass


def opened(text, folder, *options):
    """What the page tells, and the addresses that the browser asked for, once the page is in it."""
    (folder / "page.html").write_text(text)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        command = [CHROMIUM, *QUIET, f"--proxy-server=http://127.0.0.1:{server.server_port}", *options]
        command += [f"--user-data-dir={folder / 'profile'}", "--dump-dom", (folder / "page.html").as_uri()]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    finally:
        server.shutdown()
        server.server_close()
    found = re.search(r'<pre id="told">(.*?)</pre>', dom, re.S)
    return (
        json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")) if found else None
    ), server.asked


def test_the_film_scrubs_and_the_plots_are_drawn_with_no_request(page, tmp_path):
    told, asked = opened(page.replace("</body>", DRIVE + "</body>"), tmp_path, "--window-size=1100,900")
    assert asked == []
    assert told["loaded"] == []
    for name, step in (("first", 10), ("second", 20), ("last", 30)):
        seen = told[name]
        assert seen["alt"] == f"Grid of 64 samples after step {step}"
        assert seen["at"] == seen["said"] == f"step {step}"
        assert seen["wide"] == 8 * (4 * 16 + 2) + 2
    assert len({told[name]["src"] for name in ("first", "second", "last")}) == 3
    assert told["played"] == ["step 10", "step 20", "step 30", "step 30"]
    assert len(told["plots"]) == 4  # all times, by time, learning rate, speed
    for plot in told["plots"]:
        assert plot["length"] > 300
        assert plot["stroke"].startswith("rgb(")
        assert plot["high"] > 100
        assert plot["said"].startswith("step 30: ")
    assert told["plots"][2]["said"] == "step 30: 3"
    assert not told["scrolls"]


def test_on_a_narrow_screen_nothing_is_cut_off(page, tmp_path):
    told, asked = opened(page.replace("</body>", DRIVE + "</body>"), tmp_path, "--window-size=500,800")
    assert asked == []
    assert not told["scrolls"]
    assert all(plot["wide"] < 500 for plot in told["plots"])


def test_the_watcher_sees_requests_and_the_page_forbids_them(page, tmp_path):
    """The same page with a picture of elsewhere asks for nothing; without its policy it does."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    spoiled = page.replace("</body>", '<img alt="" src="http://example.com/a.png"></body>')
    assert opened(spoiled, tmp_path / "a")[1] == []
    free = re.sub(r"<meta http-equiv=.*?>", "", spoiled)
    assert opened(free, tmp_path / "b")[1] == ["http://example.com/a.png"]
