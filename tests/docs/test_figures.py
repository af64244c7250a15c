"""The figures of the mathematics are what the code draws today."""

import re
import subprocess
import sys

import numpy as np
import pytest
from pages import ROOT


def curves(folder):
    """The coordinates of every curve by figure and name."""
    found = {}
    for file in sorted(folder.glob("*.svg")):
        for name, path in re.findall(r'<g id="([a-z]+[-\d.]*)">\s*<path d="([^"]+)"', file.read_text()):
            found[file.name, name] = np.array(re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", path), float)
    return found


def test_they_are_drawn_again_alike(tmp_path):
    pytest.importorskip("matplotlib")
    subprocess.run([sys.executable, ROOT / "docs" / "site" / "figures.py", tmp_path], check=True)
    kept, drawn = curves(ROOT / "docs" / "figures"), curves(tmp_path)
    assert kept.keys() == drawn.keys()
    assert len(kept) == 19 + 5 + 16 + 2
    for name, numbers in kept.items():
        # Points of 1/72 inch.
        np.testing.assert_allclose(drawn[name], numbers, atol=0.3, err_msg=str(name))
