"""``Mixed``: what ``fit_table`` builds for columns of any kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from diffeo._fields import Bins, Blocks, Probability, Size, Stretch
from diffeo.bases import Base, CellDensity
from diffeo.bijections import Identity
from diffeo.bijections.base import Bijection
from diffeo.encodings import Cells
from diffeo.encodings.base import Encoding
from diffeo.errors import ConfigError
from diffeo.flow import Flow
from diffeo.objectives import AnySubset, Objective
from diffeo.presets.base import MAX_SCALE, Preset


@dataclass(frozen=True)
class Mixed(Preset):
    """Rows of categories, gaps, spikes and numbers: one autoregressive density that answers any question.

    Each column is a choice among its cells, then, for a number, a spline with a location and a scale; see
    ``CellDensity``. It is trained on random parts of the columns given random others, so that one model has
    the joint likelihood, the density of any columns given any, and draws of either.

    On purely numeric tables of strong relations ``Tabular`` has more nats: here a column is seen behind its
    own scale, and no linear map goes before.

    Args:
        features: D, columns.
        hidden: width of the net.
        blocks: its residual blocks.
        known: width of what the net knows of given columns.
        bins: of each spline.
        max_scale: how far the location and scale behind each spline may stretch, at least 1.
        dropout: in [0, 1).
        joint: share of training rows that are modeled whole, below 1.

    Raises:
        ConfigError: for a field out of its range; from ``build`` for another encoding than ``Cells``.

    References: Germain et al. 2015, "MADE"; Yang et al. 2019, "Deep unsupervised cardinality estimation", for
    mixed rows by one masked net; Liang et al. 2020 for hidden columns.

    Example:
        >>> from diffeo.encodings import Levels
        >>> columns = Cells([Levels("sex", "string", False, ("F", "M"))])
        >>> Mixed(features=1, hidden=8).build(columns).sample(3).shape
        torch.Size([3, 1])
    """

    learning_rate: ClassVar[float] = 2e-3

    features: Size
    hidden: Size = 256
    blocks: Blocks = 2
    known: Size = 128
    bins: Bins = 8
    max_scale: Stretch = MAX_SCALE
    dropout: Probability = 0.1
    joint: Probability = 0.5

    @property
    def conditioned_on(self) -> None:
        return None

    def map(self, context_shape: torch.Size | None) -> Bijection:
        return Identity((self.features, 4))

    def base(self, latent_shape: torch.Size) -> Base:
        raise ConfigError("the columns of a Mixed come from its encoding; call build(encoding).")

    def objective(self) -> Objective:
        return AnySubset(self.joint)

    def build(self, encoding: Encoding | None = None) -> Flow:
        if not isinstance(encoding, Cells) or len(encoding.columns) != self.features:
            raise ConfigError(
                f"Mixed(features={self.features}) is built for the Cells of as many columns: build(encoding)."
            )
        given = [encoding.names.index(name) for name in encoding.given]
        base = CellDensity(
            encoding.columns,
            self.hidden,
            self.blocks,
            self.known,
            self.bins,
            self.max_scale,
            self.dropout,
            given=given,
        )
        flow = Flow(self.map(None), base, encoding)
        flow.preset = self
        return flow


def choose_mixed(rows: int, columns: int) -> Mixed:
    """The ``Mixed`` for a table of this size.

    Args:
        rows: training rows.
        columns: to model, given ones too.

    Example:
        >>> choose_mixed(500, 8).hidden, choose_mixed(50_000, 8).hidden
        (64, 256)
    """
    if rows < 2_000:
        return Mixed(columns, hidden=64, known=32, blocks=1, dropout=0.2)
    if rows < 8_000:
        return Mixed(columns, hidden=128, known=64, dropout=0.2)
    return Mixed(columns)
