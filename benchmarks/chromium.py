"""A headless Chromium, driven over its own protocol by a pair of pipes: for walks through pages, without any library.

What it is asked for is written down, so that a walk can show that no request left the machine.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage", "--disable-quic",
    "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip

PATIENCE = 60.0
"""Seconds until what does not come is a failure."""


class Browser:
    """A browser whose tabs are opened one after the other."""

    def __init__(self, folder: Path) -> None:
        assert PROGRAM, "no Chromium is installed (Debian: apt install chromium)"
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        # It reads from file descriptor 3 and writes to 4.
        spell = f'exec 3<&{to_read} 4>&{to_write}; exec "$@"'
        command = ["bash", "-c", spell, "bash", PROGRAM, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            command, pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(to_write)
        self._number, self._rest = 0, b""
        self.events: list[dict[str, Any]] = []

    def tab(self, url: str, width: int = 1100, height: int = 900, dark: bool = False, script: str = "") -> Tab:
        """Open a tab of so many pixels, in a context of its own, with a script that runs before the page's."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Network", "Log"):
            tab.call(f"{domain}.enable")
        mobile = width < 600
        tab.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.call("Emulation.setEmulatedMedia", features=[scheme])
        if script:
            tab.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        tab.call("Page.navigate", url=url)
        return tab

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Return what the browser answers."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        content = json.dumps(message).encode() + b"\0"
        while content:
            content = content[os.write(self._write, content) :]
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            answer = self._next(end - time.monotonic())
            if answer is None:
                continue
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self.events.append(answer)
        raise TimeoutError(f"The browser does not answer to {method}.")

    def _next(self, patience: float) -> dict[str, Any] | None:
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(0.0, patience))[0]:
                return None
            piece = os.read(self._read, 2**20)
            if not piece:
                raise ConnectionError("The browser has ended.")
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def close(self) -> None:
        """End the browser."""
        self._process.terminate()
        self._process.wait(20)
        os.close(self._read)
        os.close(self._write)


class Tab:
    """One page."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Return what the browser answers for this tab."""
        return self._browser.call(method, self._session, **params)

    def run(self, code: str) -> Any:
        """Return what JavaScript evaluates to, promises awaited."""
        made = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in made, made["exceptionDetails"].get("exception", made).get("description", made)
        return made["result"].get("value")

    def until(self, code: str) -> None:
        """Wait until JavaScript evaluates to something true."""
        end = time.monotonic() + PATIENCE
        while not self.run(code):
            assert time.monotonic() < end, f"It never came: {code}"
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """Press the middle of an element."""
        self.drag(selector, [(0.5, 0.5)])

    def drag(self, selector: str, places: list[tuple[float, float]]) -> None:
        """Press, move and let go at places of an element, as shares of its width and height."""
        find = f"document.querySelector({json.dumps(selector)})"
        box = self.run(
            f"(() => {{ const e = {find}; e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect(); "
            "return [b.left, b.top, b.width, b.height]; })()"
        )
        points = [(box[0] + u * box[2], box[1] + v * box[3]) for u, v in places]
        for kind, (x, y) in [
            ("mousePressed", points[0]),
            *(("mouseMoved", p) for p in points),
            ("mouseReleased", points[-1]),
        ]:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def press(self, key: str, *, shift: bool = False, text: str = "") -> None:
        """Press a key by its name, such as Tab, ArrowLeft or Enter."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        told = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0), "modifiers": 8 if shift else 0}
        text = text or {"Enter": "\r", " ": " "}.get(key, "")
        self.call(
            "Input.dispatchKeyEvent",
            type="keyDown" if text else "rawKeyDown",
            **told,
            **({"text": text} if text else {}),
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def fill(self, selector: str, value: str) -> None:
        """Give a field a value, as if it were typed or moved there."""
        self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(value)}; "
            "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {bubbles: true})); })()"
        )

    def offer(self, selector: str, path: Path) -> None:
        """Choose a file in a file field."""
        node = self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")["result"][
            "objectId"
        ]
        self.call("DOM.setFileInputFiles", files=[str(path)], objectId=node)

    def screenshot(self, whole: bool = True) -> bytes:
        """Return a PNG of the page, the whole of it or what is on the screen."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"])

    def requests(self) -> list[str]:
        """Return the addresses that the page has asked for, those of its own data aside."""
        urls = [e["params"]["request"]["url"] for e in self._mine("Network.requestWillBeSent")]
        return [url for url in urls if not url.startswith(("data:", "blob:"))]

    def complaints(self) -> list[str]:
        """Return the errors that the page's scripts, and what they loaded, have ended in."""
        thrown = [str(e["params"]["exceptionDetails"]) for e in self._mine("Runtime.exceptionThrown")]
        logged = [e["params"]["entry"] for e in self._mine("Log.entryAdded")]
        return thrown + [f"{e['text']} {e.get('url', '')}" for e in logged if e["level"] == "error"]

    def _mine(self, method: str) -> list[dict[str, Any]]:
        self.run("0")
        return [e for e in self._browser.events if e.get("sessionId") == self._session and e["method"] == method]


@contextmanager
def browser() -> Iterator[Browser]:
    """Give a browser with a profile of its own, and end it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        started = Browser(Path(folder))
        try:
            yield started
        finally:
            started.close()
