"""Presets: a flow by the name of its paper."""

from diffeo.presets.autoregressive import IAF, MAF, NSF
from diffeo.presets.base import Classes, Preset, Vector
from diffeo.presets.continuous import FFJORD, FlowMatching
from diffeo.presets.coupling import NICE, CouplingNSF, RealNVP
from diffeo.presets.monotone import BPF, NAF, SOSPF, UNAF, Gaussianization
from diffeo.presets.planar import Planar, Radial, Sylvester
from diffeo.presets.residual import IResNet, ResidualFlow, RevNet
from diffeo.presets.tabular import Tabular, choose

__all__ = [
    "BPF",
    "FFJORD",
    "FlowMatching",
    "IAF",
    "IResNet",
    "KINDS",
    "MAF",
    "NAF",
    "NICE",
    "NSF",
    "SOSPF",
    "UNAF",
    "Classes",
    "CouplingNSF",
    "Gaussianization",
    "Planar",
    "Preset",
    "Radial",
    "RealNVP",
    "ResidualFlow",
    "RevNet",
    "Sylvester",
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
