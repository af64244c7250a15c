"""The extension by which griffe, which reads the docstrings for mkdocstrings, typesets their formulas (`latex.typeset`)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import griffe

# griffe loads this file by itself, without its folder.
sys.path.insert(0, str(Path(__file__).parent))
from latex import typeset


class Formulas(griffe.Extension):
    """Typesets every docstring that griffe reads."""

    def on_instance(self, *, obj: griffe.Object | griffe.Alias, **kwargs: Any) -> None:
        """Called with each object as it is made, its docstring read."""
        if isinstance(obj, griffe.Object) and obj.docstring:
            obj.docstring.value = typeset(obj.docstring.value)
