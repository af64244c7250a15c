"""What the pages tell a reader to type: fenced blocks of Markdown, with what a comment before one says of it.

A comment is for the tests alone; the site leaves it out. Directly before a block it is one of

    <!-- skip: why this cannot be run by a test -->
    <!-- given: images = np.zeros((8, 1, 8, 8), "float32") -->      Python that the block takes for granted
    <!-- run: side=64 -> side=8; --network unet-tiny -> -->         what is typed otherwise, or not at all, to be done in no time
"""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = tuple(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
)
RUN = ("python", "sh", "console")
"""The languages of what is run; all others are shown."""

FENCE = re.compile(
    r"^(?:<!-- (?P<what>skip|given|run): (?P<said>.*?) ?-->\n\n?)?(?P<in> *)(?P<fence>```+)(?P<language>\w*)\n(?P<text>.*?)^ *(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page that begins at a line."""

    page: str
    line: int
    language: str
    text: str
    skip: str = ""
    given: str = ""
    run: str = ""

    def typed(self) -> str:
        """Return the text as the tests type it."""
        text = self.text
        for change in filter(None, self.run.split("; ")):
            old, _, new = (part.strip() for part in change.partition("->"))
            if old not in text:
                raise ValueError(f"{self.page}, line {self.line}: there is no {old!r} to be replaced.")
            text = text.replace(old, new)
        return text

    def commands(self) -> list[str]:
        """Return the command lines; in a console those after a $, for the others are answers."""
        lines = self.typed().replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page that a reader types."""
    text = (ROOT / page).read_text()
    found = []
    for match in FENCE.finditer(text):
        if match["language"] in RUN:
            line = text.count("\n", 0, match.start("fence")) + 1
            said = {match["what"]: match["said"]} if match["what"] else {}
            found.append(Block(page, line, match["language"], textwrap.dedent(match["text"]), **said))
    return found
