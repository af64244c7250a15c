"""Nothing of the built site is fetched from elsewhere: ``python docs/site/offline.py build/site`` says what would be, and fails.

Looked at is what a browser loads by itself: pictures, scripts, style sheets and what these name. Links that a reader follows may lead anywhere.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

LOADS = {
    "img": "src",
    "script": "src",
    "iframe": "src",
    "source": "src",
    "link": "href",
    "object": "data",
    "video": "src",
}
ELSEWHERE = re.compile(r"^(?:[a-z]+:)?//", re.IGNORECASE)


class Loaded(HTMLParser):
    """Collects the addresses that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what the tag loads."""
        given = dict(attrs)
        if tag in LOADS and given.get(LOADS[tag]) and given.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(str(given[LOADS[tag]]))


def from_elsewhere(site: Path) -> list[str]:
    """Return the files of a site with the addresses elsewhere that a browser would ask for."""
    found = []
    for page in sorted(site.rglob("*.html")):
        loaded = Loaded()
        loaded.feed(page.read_text())
        found += [f"{page}: {address}" for address in loaded.addresses if ELSEWHERE.match(address)]
    for sheet in sorted(site.rglob("*.css")):
        named = re.findall(r"""(?:@import\s+(?!url)|url\()["']?([^"')]+)""", sheet.read_text())
        found += [f"{sheet}: {address}" for address in named if ELSEWHERE.match(address)]
    return found


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if not (place / "index.html").is_file():
        sys.exit(f"{place} is no site: it has no index.html.")
    if asked := from_elsewhere(place):
        sys.exit("\n".join(["These would be fetched from elsewhere:", *asked]))
    print(f"{place} loads nothing from elsewhere.")
