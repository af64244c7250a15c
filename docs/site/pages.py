"""What is done to the site's pages beside Markdown: `mkdocs` calls these functions by their names.

- Pages that stand elsewhere in the repository, or are made of code, join: BENCHMARKS.md and its like, the examples, the reference.
- Links to a file of the repository become links to the page that has it.
- Formulas become MathML, which browsers draw by themselves: no script, no font and nothing from elsewhere.
- Names such as `cmcore.paths.VE` between backquotes lead to the reference.
"""

from __future__ import annotations

import html
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]

ELSEWHERE = {
    "BENCHMARKS.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "DESIGN.md": "design.md",
    "README.md": "index.md",
    "examples/bring_your_own.py": "examples/bring_your_own.md",
    "examples/notebooks/jax.ipynb": "examples/notebooks/jax.md",
    "examples/notebooks/tinygrad.ipynb": "examples/notebooks/tinygrad.md",
    "examples/notebooks/torch.ipynb": "examples/notebooks/torch.md",
    "examples/digits.py": "examples/digits.md",
    "examples/new_method.py": "examples/new_method.md",
    "examples/new_network.py": "examples/new_network.md",
    "examples/own_jax.py": "examples/own_jax.md",
    "examples/own_tinygrad.py": "examples/own_tinygrad.md",
    "examples/own_torch.py": "examples/own_torch.md",
    "examples/toy2d.py": "examples/toy2d.md",
    "tests/conformance/boxed.py": "examples/boxed.md",
}
"""The page of each file of the repository that stands outside this folder."""

REFERENCE = {
    "cmcore": ["cmcore"],
    "paths": ["cmcore.paths"],
    "parametrization": ["cmcore.parametrization"],
    "grids": ["cmcore.grids", "cmcore.noise_levels"],
    "solvers": ["cmcore.solvers", "cmcore.solvers.onestep"],
    "flow_maps": ["cmcore.flow_maps", "cmcore.tangents"],
    "losses": ["cmcore.losses", "cmcore.distances", "cmcore.weightings"],
    "recipes": [
        "cmcore.recipes", "cmcore.recipes.denoising", "cmcore.recipes.distillation", "cmcore.recipes.training",
        "cmcore.recipes.continuous", "cmcore.recipes.eulerian", "cmcore.recipes.lagrangian", "cmcore.recipes.moment_matching", "cmcore.recipes.semigroup", "cmcore.recipes.trajectory",
        "cmcore.options",
    ],
    "training": ["cmcore.training", "cmcore.optimization", "cmcore.ema"],
    "sampling": ["cmcore.sampling", "cmcore.search"],
    "editing": ["cmcore.editing"],
    "model": ["cmcore.model", "cmcore.data_facts"],
    "networks": ["cmcore.networks"],
    "backend": ["cmcore.backend", "cmcore.testing"],
    "metrics": ["cmcore.metrics", "cmcore.features"],
    "oracles": ["cmcore.oracles", "cmcore.posterior"],
    "interchange": ["cmcore.interchange", "cmcore.interchange.decoder"],
}  # fmt: skip
"""The modules on each page of the reference."""

LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(?=(?:#[^)]*)?\))")
NAME = re.compile(r"<code>((?:cm|cmcore)(?:\.[A-Za-z_]\w*)+)([^<]*)</code>(?!</a>)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
FOR_TESTS = re.compile(r"(?ms)^<!-- (?:run|given|skip)\b.*?-->\n")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not stand in this folder."""
    for place, page in ELSEWHERE.items():
        if page != "index.md":
            files.append(File.generated(config, page, content=_elsewhere(ROOT / place)))
    for page, modules in REFERENCE.items():
        files.append(File.generated(config, f"api/{page}.md", content=_reference(page, modules)))
    return files


def on_page_markdown(markdown: str, page: Page, **given: Any) -> str:
    """Lead links to files of the repository to their pages, and leave out what is said to the tests alone."""
    at = page.file.src_uri
    source = next((place for place, name in ELSEWHERE.items() if name == at), f"docs/{at}")

    def led(found: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        target = ELSEWHERE.get(place, place.removeprefix("docs/") if place.startswith("docs/") else None)
        return posixpath.relpath(target, posixpath.dirname(at) or ".") if target else found[1]

    return LINK.sub(led, FOR_TESTS.sub("", markdown))


def on_page_content(content: str, **given: Any) -> str:
    """Draw the formulas, and link names to the reference."""
    return NAME.sub(_linked, FORMULA.sub(_drawn, content))


def _drawn(found: re.Match[str]) -> str:
    kind, latex = found[2], html.unescape(found[3])
    mathml = convert(latex.strip(), display="inline" if kind == "(" else "block")
    return mathml if kind == "(" else f'<div class="formula">{mathml}</div>'


def _linked(found: re.Match[str]) -> str:
    name = re.sub(r"^cm\.", "cmcore.", found[1])
    return f'<autoref identifier="{name}" optional><code>{found[1]}{found[2]}</code></autoref>'


def _elsewhere(file: Path) -> str:
    text = file.read_text()
    if file.suffix == ".md":
        return text
    if file.suffix == ".ipynb":
        cells = ((cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"])
        return "\n\n".join(said if kind == "markdown" else f"````python\n{said}\n````" for kind, said in cells)
    said = re.match(r'"""(.*?)"""\n', text, re.DOTALL)
    if said is None:
        raise ValueError(f"{file} does not say what it is: its first line must begin a docstring.")
    return f"# {file.name}\n\n{said[1].strip()}\n\n````python\n{text[said.end() :].strip()}\n````\n"


def _reference(page: str, modules: list[str]) -> str:
    # Several modules on one page each get their name as a heading, their members one level below.
    if len(modules) == 1:
        return f"# {modules[0]}\n\n::: {modules[0]}\n"
    below = "    options:\n      heading_level: 3\n"
    return f"# {page}\n\n" + "\n".join(f"## {module}\n\n::: {module}\n{below}" for module in modules)
