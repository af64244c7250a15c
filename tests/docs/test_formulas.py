"""Docstrings' formulas become LaTeX, and code stays code; what is built is looked at for what it would load from elsewhere."""

import importlib.util
import re

import pytest
from pages import ROOT


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


latex, offline = loaded("latex"), loaded("offline")


@pytest.mark.parametrize(
    ("plain", "expected"),
    [
        ("x_t = x_0 + t z", r"x_{t} = x_{0} + t \, z"),
        ("(x - D(x, t)) / t", r"\frac{x - D\left(x, t\right)}{t}"),
        ("sqrt(t^2 - t_min^2)", r"\sqrt{t^{2} - t_{\text{min}}^{2}}"),
        ("E[x_0 | x_t = x]", r"\mathbb{E}\left[x_{0} \mid x_{t} = x\right]"),
        ("u = v - (t - s) du/dt", r"u = v - \left(t - s\right) \, \frac{d u}{d t}"),
        ("t^(1/rho)", r"t^{1 / \rho}"),
        ("q^-(stage + 1)", r"q^{-\left(\text{stage} + 1\right)}"),
        ("grad_x log p_t(x)", r"\nabla_{x} \, \log p_{t}\left(x\right)"),
        ("2 <f, stopgrad(df/dt)> dt/du", r"2 \, \left\langle f, \operatorname{stopgrad}\left(\frac{d f}{d t}\right) \right\rangle \, \frac{d t}{d u}"),
        ("|d| << c", r"\left|d\right| \ll c"),
        ("z ~ N(0, I)", r"z \sim N\left(0, I\right)"),
        ("sum_k w_k x", r"\sum_{k} \, w_{k} \, x"),
        ("1 / (1 - b1^t)", r"\frac{1}{1 - b_1^{t}}"),
        ("a / b c", r"\frac{a}{b} \, c"),
        ("a b / c", r"\frac{a \, b}{c}"),
    ],
)  # fmt: skip
def test_a_formula_is_typeset(plain, expected):
    assert latex.to_latex(plain) == expected


@pytest.mark.parametrize(
    "code",
    ["net(x, c_noise, **cond)", 'network="edm"', "lr=1e-3", "distance(x, y) -> (B,)", "cmcore train --dry-run", "steps + 1", "(a + b", "a + ", ""],
)  # fmt: skip
def test_code_stays_code(code):
    with pytest.raises(latex.NoFormulaError):
        latex.to_latex(code)
    assert latex.typeset(f"Say ``{code}``.") == f"Say ``{code}``."


def test_lines_of_formulas_are_displayed_and_lines_of_code_are_not():
    assert latex.typeset("Scalings::\n\n    c_skip = a    c_out = b\n\nwith a.") == (
        "Scalings:\n\n\\[c_{\\text{skip}} = a\\]\n\n\\[c_{\\text{out}} = b\\]\n\nwith a."
    )
    assert "    h = net(x, key=None)" in latex.typeset("A network::\n\n    h = net(x, key=None)\n")


def test_most_of_the_docstrings_formulas_are():
    """So that a change to the grammar that loses many does not go unnoticed."""
    pieces = {p for file in (ROOT / "cmcore").rglob("*.py") for p in re.findall(r"``([^`\n]+)``", file.read_text())}
    done = [piece for piece in pieces if latex.typeset(f"``{piece}``").startswith(r"\(")]
    assert len(done) > 120


def test_what_a_page_would_load_is_seen(tmp_path):
    page = '<link rel="canonical" href="https://a.org/"><a href="https://a.org/">a</a><img src="a.png">'
    (tmp_path / "index.html").write_text(page)
    (tmp_path / "site.css").write_text('@import "more.css"; a { background: url(data:image/png;base64,aa) }')
    assert offline.from_elsewhere(tmp_path) == []
    (tmp_path / "index.html").write_text(page + '<script src="//cdn.org/a.js"></script><img src="https://a.org/b.png">')
    (tmp_path / "site.css").write_text("@import url('https://fonts.org/a');")
    assert [asked.partition(": ")[2] for asked in offline.from_elsewhere(tmp_path)] == [
        "//cdn.org/a.js",
        "https://a.org/b.png",
        "https://fonts.org/a",
    ]
