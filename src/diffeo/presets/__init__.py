"""Presets: a flow by the name of its paper."""

from inspect import isabstract

from diffeo.presets.autoregressive import IAF, MAF, NSF
from diffeo.presets.base import ImagePreset, Preset, VectorPreset
from diffeo.presets.continuous import FFJORD, FlowMatching
from diffeo.presets.coupling import NICE, CouplingNSF, RealNVP
from diffeo.presets.mixed import Mixed, choose_mixed
from diffeo.presets.monotone import BPF, NAF, SOSPF, UNAF, Gaussianization
from diffeo.presets.multiscale import Glow, RealNVPImage, SplineGlow
from diffeo.presets.pixel import PixelFlow
from diffeo.presets.planar import Planar, Radial, Sylvester
from diffeo.presets.residual import IResNet, ResidualFlow, RevNet
from diffeo.presets.tabular import Tabular, choose
from diffeo.presets.transformer import Jet, TarFlow

__all__ = [
    "BPF",
    "FFJORD",
    "FlowMatching",
    "IAF",
    "IResNet",
    "PRESETS",
    "MAF",
    "Mixed",
    "NAF",
    "NICE",
    "NSF",
    "SOSPF",
    "UNAF",
    "CouplingNSF",
    "Gaussianization",
    "Glow",
    "ImagePreset",
    "Jet",
    "PixelFlow",
    "Planar",
    "Preset",
    "Radial",
    "RealNVP",
    "RealNVPImage",
    "ResidualFlow",
    "RevNet",
    "SplineGlow",
    "Sylvester",
    "Tabular",
    "TarFlow",
    "VectorPreset",
    "choose",
    "choose_mixed",
]

PRESETS: dict[str, type[Preset]] = {
    name: kind
    for name, kind in ((name, globals()[name]) for name in __all__ if name != "PRESETS")
    if isinstance(kind, type) and issubclass(kind, Preset) and not isabstract(kind)
}
"""Every preset by its class name."""
