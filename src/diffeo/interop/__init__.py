"""Adapters: flows in the formats and manners of other programs."""

from diffeo.interop.browser import LAYERS_FORMAT, browser_json

__all__ = ["LAYERS_FORMAT", "browser_json"]
