"""Model files that rebuild themselves and hold no code."""

from diffeo.io.files import FORMAT, FileInfo
from diffeo.io.flows import inspect, load, save

__all__ = ["FORMAT", "FileInfo", "inspect", "load", "save"]
