"""A run as one HTML page that needs nothing else: no server, no network, no other file."""

from cmcore.run.html.page import page, place

__all__ = ["page", "place"]
