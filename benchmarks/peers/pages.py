"""Which models are measured, how, and on which page they are reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from peers.architecture import IMAGES, LAYERED

TIMED = ("log_prob", "train", "sample")
MEMORY, ROUND_TRIP = "memory", "round_trip"
KINDS = (*TIMED, MEMORY, ROUND_TRIP)


@dataclass(frozen=True)
class Plan:
    """What is measured of a model: kinds of rows, numbers of columns, batch sizes."""

    rows: tuple[str, ...]
    features: tuple[int, ...]
    batch: tuple[int, ...]


@dataclass(frozen=True)
class Page:
    """A report of its own, RESULTS/name.json and RESULTS/name.md, so that a run of one leaves the others."""

    name: str
    title: str
    flows: str
    """What every contestant builds, in words."""
    plans: Mapping[str, Plan]


PAGES = (
    Page(
        "peers",
        "diffeo beside other libraries",
        "Five layers, nets of 64 x 64 hidden units with ReLU, splines of 8 bins on [-3, 3].",
        dict.fromkeys(LAYERED, Plan((*TIMED, MEMORY), (8, 64), (256, 1024, 16384))),
    ),
    Page(
        "peers_free_form",
        "Residual and continuous flows beside other libraries",
        "Nets of 64 x 64 hidden units. ResidualFlow: five blocks x + g(x), LipSwish, the norms of a net's "
        "layers with a product of at most 0.97; each net is fitted to 0.9 Q tanh(x), Q a random rotation, as "
        "near as its library's bound lets it, so that the inverse has to work. FFJORD: one field with tanh "
        "and three pairs of time features, the same weights in each library, which move points by some 0.8; "
        "exact traces, tolerance 1e-5 absolute and relative.",
        {
            "ResidualFlow": Plan(("sample", ROUND_TRIP), (2, 8), (256, 1024)),
            "FFJORD": Plan((*TIMED, ROUND_TRIP), (2, 8), (256, 1024)),
        },
    ),
    Page(
        "peers_images",
        "Glow beside other libraries",
        "Square images with sides of D pixels. Three levels of eight steps: activation normalization, 1 x 1 "
        "convolution by LU factors, affine coupling of channels by a net of 3 x 3, 1 x 1 and 3 x 3 "
        "convolutions with 64 channels between.",
        dict.fromkeys(IMAGES, Plan((*TIMED, MEMORY, ROUND_TRIP), (32, 64), (16, 64))),
    ),
)
PLANS = {model: plan for page in PAGES for model, plan in page.plans.items()}
