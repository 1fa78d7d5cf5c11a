"""Model files that rebuild themselves and hold no code."""

from diffeo.io.files import FORMAT, FileInfo
from diffeo.io.flows import inspect, load, save
from diffeo.io.layers import LAYERS_FORMAT, to_json

__all__ = ["FORMAT", "LAYERS_FORMAT", "FileInfo", "inspect", "load", "save", "to_json"]
