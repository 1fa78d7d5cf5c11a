"""Presets: a flow by the name of its paper."""

from diffeo.presets.autoregressive import IAF, MAF, NSF
from diffeo.presets.base import Classes, Preset, Vector
from diffeo.presets.coupling import NICE, CouplingNSF, RealNVP
from diffeo.presets.tabular import Tabular, choose

__all__ = [
    "IAF",
    "KINDS",
    "MAF",
    "NICE",
    "NSF",
    "Classes",
    "CouplingNSF",
    "Preset",
    "RealNVP",
    "Tabular",
    "Vector",
    "choose",
]

KINDS: dict[str, type[Preset]] = {
    name: kind
    for name, kind in ((name, globals()[name]) for name in __all__ if name != "KINDS")
    if isinstance(kind, type) and issubclass(kind, Preset) and kind is not Preset
}
"""Every preset by its class name."""
