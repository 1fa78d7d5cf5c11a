"""``check_encoding``: the contract of an encoding, data to real vectors and back."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffeo.encodings.base import Encoding
from diffeo.functional.seeding import generator, seeded
from diffeo.testing.rules import Rules, require, require_close

rules = Rules()


@dataclass(frozen=True)
class Subject:
    """A private copy of the encoding in evaluation mode, and data inside and outside its support."""

    encoding: Encoding
    x: Tensor
    outside: Tensor | None
    seed: int


def check_encoding(encoding: Encoding, x: Tensor, *, outside: Tensor | None = None, seed: int = 0) -> None:
    """Hold an encoding to its contract: shapes, support, round trip, weights, determinism, JSON.

    Args:
        encoding: any kind.
        x: rows in its support, ``(rows, *event_shape)``.
        outside: rows outside its support; each must score -inf.
        seed: of the codes that are decoded.

    Raises:
        AssertionError: it names the kind, the rule and the numbers.

    Example:
        >>> import torch
        >>> from diffeo.encodings.columns import Column, Columns
        >>> from diffeo.encodings.kinds import Positive
        >>> columns = Columns([Column("price", Positive())])
        >>> check_encoding(columns, torch.tensor([[0.5], [3.0]], dtype=torch.float64))
    """
    own = copy.deepcopy(encoding).double().eval()
    rules.run(type(encoding).__name__, Subject(own, x, outside, seed))


@rules.add("shapes", 3)
def _shapes(s: Subject) -> None:
    event, latent = s.encoding.event_shape, s.encoding.latent_shape
    for batch in ((), (0,), (1,), (2, 3)):
        x = s.x[torch.arange(math.prod(batch)) % len(s.x)].reshape((*batch, *event))
        v, log_weight = s.encoding.encode(x)
        require(v.shape[1:] == (*batch, *latent), f"a batch {batch} is encoded with shape {tuple(v.shape)}")
        require(
            log_weight.shape == v.shape[:1] + batch, f"a batch {batch} gets weights {tuple(log_weight.shape)}"
        )
        back = s.encoding.decode(v[0])
        require(back.shape == x.shape, f"{tuple(v[0].shape)} is decoded with shape {tuple(back.shape)}")
    draws = len(s.encoding.encode(s.x)[0])
    require(draws >= 1 and (draws == 1 or not s.encoding.exact), f"exact, but with {draws} draws")


@rules.add("dtypes", 10)
def _dtypes(s: Subject) -> None:
    for dtype in (torch.float32, torch.float64):
        found = {t.dtype for t in copy.deepcopy(s.encoding).to(dtype).encode(s.x)}
        require(found == {dtype}, f"a {dtype} model is handed {found}")


@rules.add("round trip", 8)
def _round_trip(s: Subject) -> None:
    v, log_weight = s.encoding.encode(s.x)
    require(
        v.isfinite().all() and log_weight.isfinite().all(),
        "data of the support have codes that are not finite",
    )
    for draw in v:
        require_close("decode of encode", s.encoding.decode(draw), s.x, 1e-9 * (1 + s.x.abs()))


@rules.add("support", 9)
def _support(s: Subject) -> None:
    shape = (200, *s.encoding.latent_shape)
    for scale in (1.0, 30.0, 1e6):
        v = scale * torch.randn(shape, generator=generator(s.seed), dtype=torch.float64)
        weight = s.encoding.encode(s.encoding.decode(v))[1]
        require(weight.isfinite().all(), f"codes of size {scale:g} are decoded outside the support")


@rules.add("outside the support", 9)
def _outside(s: Subject) -> None:
    if s.outside is not None:
        v, log_weight = s.encoding.encode(s.outside)
        require(v.isfinite().all(), "data outside the support have codes that are not finite")
        finite = (log_weight != -math.inf).any(0).nonzero().flatten().tolist()
        require(not finite, f"rows {finite} lie outside the support but get a finite log_weight")


@rules.add("gaps", 9)
def _gaps(s: Subject) -> None:
    if not s.encoding.takes_gaps:
        return
    clean = s.encoding.encode(s.x)[0]
    for i in range(s.x.shape[-1]):
        x = s.x.clone()
        x[0, ..., i] = math.nan
        v, log_weight = s.encoding.encode(x)
        require(v.isfinite().all() and log_weight.isfinite().all(), f"a gap in element {i} is no data")
        require(not torch.equal(v[:, 0], clean[:, 0]), f"a gap in element {i} is encoded as a value")
        require(torch.equal(v[:, 1:], clean[:, 1:]), "a gap touches other rows")
        back = s.encoding.decode(v[0])
        require(torch.equal(back.isnan(), x.isnan()), f"a gap in element {i} is decoded as a value")


@rules.add("NaN", 9)
def _nan(s: Subject) -> None:
    for i in [] if s.encoding.takes_gaps else range(s.x.shape[-1]):
        x = s.x.clone()
        x[0, ..., i] = math.nan
        v, log_weight = s.encoding.encode(x)
        hidden = not (v[:, 0].isnan().any() or log_weight[:, 0].isnan().any())
        require(not hidden, f"NaN in element {i} is hidden")
        require(not log_weight[:, 0].isinf().any(), f"NaN in element {i} gets the log_weight -inf")
        require(v[:, 1:].isfinite().all(), "NaN touches other rows")


@rules.add("weights", 2)
def _weights(s: Subject) -> None:
    if not s.encoding.exact or s.encoding.latent_shape != s.encoding.event_shape:
        return
    log_weight = s.encoding.encode(s.x)[1][0]
    for i, row in enumerate(s.x.double()):
        jacobian = torch.autograd.functional.jacobian(lambda r: s.encoding.encode(r)[0][0], row)
        wanted = torch.linalg.slogdet(jacobian.reshape(row.numel(), -1))[1]
        require_close(
            f"log_weight of row {i} against autograd", log_weight[i], wanted, 1e-7 * (1 + wanted.abs())
        )


@rules.add("determinism", 6)
def _determinism(s: Subject) -> None:
    x = s.x.clone()
    with seeded(1):
        before = torch.get_rng_state()
        first = s.encoding.encode(x)
        require(
            torch.equal(before, torch.get_rng_state()), "torch's default generator is used in evaluation mode"
        )
        torch.manual_seed(2)
        for a, b in zip(first, s.encoding.encode(x), strict=True):
            require(torch.equal(a, b), "two evaluations differ")
        require(torch.equal(x, s.x), "encode changes its input in place")
        training = copy.deepcopy(s.encoding).train()
        require(len(training.encode(x)[0]) == 1, "more than one draw in training mode")


@rules.add("JSON", 6)
def _json(s: Subject) -> None:
    spec = json.loads(json.dumps(s.encoding.to_json()))
    twin = type(s.encoding).from_json(spec).double().eval()
    for a, b in zip(twin.encode(s.x), s.encoding.encode(s.x), strict=True):
        require(torch.equal(a, b), "the encoding rebuilt from its JSON encodes differently")
