"""Other programs' checkpoints: read without executing anything, and written; a layout is a table of names, used both ways."""

from cmcore.interchange.export import FORMATS, export_model
from cmcore.interchange.imports import OPTIONS, import_model
from cmcore.interchange.layouts import LAYOUTS

__all__ = ["FORMATS", "LAYOUTS", "OPTIONS", "export_model", "import_model"]
