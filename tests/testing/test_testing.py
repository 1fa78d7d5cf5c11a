"""The suite can fail: kinds broken on purpose, each caught by the rule it breaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.distributions import constraints

from diffeo import presets
from diffeo.bases import Normal
from diffeo.bijections.base import Bijection
from diffeo.contracts import Initializable, Traits
from diffeo.elementwise import Affine, PiecewiseLinear, RationalQuadratic
from diffeo.encodings.columns import Column, Columns
from diffeo.encodings.kinds import Continuous, Positive
from diffeo.flow import Flow
from diffeo.testing import check_base, check_bijection, check_elementwise, check_encoding, check_flow

Pair = tuple[Tensor, Tensor]


class Good(Bijection):
    """``z = x exp(a + W c)``: nothing wrong with it; every class below breaks one thing."""

    def __init__(self, features: int = 3, context: int | None = None):
        super().__init__((features,), context_shape=None if context is None else (context,))
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.weight = None if context is None else nn.Parameter(torch.zeros(context, features))

    def _log_scale(self, x: Tensor, context: Tensor | None) -> Tensor:
        shift = 0.0 if self.weight is None or context is None else context @ self.weight
        return (self.log_scale + shift).expand(x.shape)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        s = self._log_scale(x, context)
        return x * s.exp(), s.sum(-1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Pair:
        s = self._log_scale(y, context)
        return y * (-s).exp(), -s.sum(-1)


class WrongSign(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().forward(x, context)
        return value, -log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().inverse(y, context)
        return value, -log_det


class Mean(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().forward(x, context)
        return value, log_det / 3

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().inverse(y, context)
        return value, log_det / 3


class OneLogDet(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().forward(x, context)
        return value, log_det.sum()


class NoLogDet(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Any:
        return super().forward(x, context)[0]


class InPlace(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        s = self._log_scale(x, context)
        if not x.requires_grad:
            x += 1.0
            x -= 1.0
        return x * s.exp(), s.sum(-1)


class Detached(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().forward(x, context)
        return value, log_det.detach()


class NoGradInEval(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        s = self._log_scale(x, context)
        s = s if self.training else s.detach()
        return x * s.exp(), s.sum(-1)


class HiddenNaN(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().forward(x, context)
        return value, torch.where(value.isnan().any(-1), -math.inf, log_det)


class NoNaN(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        return super().forward(x.nan_to_num(), context)


class Clamped(Good):
    def inverse(self, y: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().inverse(y, context)
        return value.clamp(-1, 1), log_det


class Deaf(Good):
    def _log_scale(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.log_scale.expand(x.shape)


class DeafToOne(Good):
    def _log_scale(self, x: Tensor, context: Tensor | None) -> Tensor:
        return super()._log_scale(x, None if context is None else context * torch.tensor([1.0, 0.0]))


class Random(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().forward(x, context)
        return value, log_det + 1e-12 * torch.randn_like(log_det)


class Cached(Good):
    def __init__(self, features: int = 3, context: int | None = None):
        super().__init__(features, context)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        self.calls += 1
        return super().forward(x, context)


class SingleOnly(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().forward(x.float(), context)
        return value.float(), log_det.float()


class NoEmptyBatch(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        x.max()
        return super().forward(x, context)


class OneAxisOnly(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().forward(x, context)
        return value, log_det if x.dim() <= 2 else log_det[0]


class MixesRows(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().forward(x, context)
        return value + 1e-3 * x.reshape(-1, 3).sum(0) if x.numel() else value, log_det


class Branches(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        if (x > 1e9).any():
            x = x * 1.0
        return super().forward(x, context)


class Silent(torch.autograd.Function):
    """Tanh whose tangent is zero, and whose second derivative is, too."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.tanh()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * (1 - ctx.saved_tensors[0].square()).detach()

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent * 0

    @staticmethod
    def vmap(info: Any, dims: Any, x: Tensor) -> Any:
        return Silent.apply(x), dims[0]


class Kernel(Bijection):
    def __init__(self) -> None:
        super().__init__((2,))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        s = Silent.apply(x[..., 0])
        return torch.stack([x[..., 0], x[..., 1] * s.exp()], -1), s

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Pair:
        s = Silent.apply(y[..., 0])
        return torch.stack([y[..., 0], y[..., 1] * (-s).exp()], -1), -s


class SilentTangent(Kernel):
    traits = Traits(closed_form=False, tolerance=1e-12)


class Unbounded(Good):
    """Declares a domain, and does not heed it."""

    domain = constraints.interval(0.0, 1.0)
    codomain = constraints.interval(0.0, 1.0)

    def _log_scale(self, x: Tensor, context: Tensor | None) -> Tensor:
        return 0 * self.log_scale.expand(x.shape)


class HalfInterval(Good):
    """Declares a codomain that its values leave."""

    codomain = constraints.positive


class TwiceInitialized(Good, Initializable):
    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        self.log_scale.data = -x.std(0).log()


class Unsaved(Good, Initializable):
    """Remembers its initialization, but not in the state."""

    done = False

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        if not self.done:
            self.log_scale.data = -x.std(0).log()
            self.done = True


class Shared(Good):
    """A deep copy that shares the parameter."""

    def __deepcopy__(self, memo: Any) -> Shared:
        twin = Shared.__new__(Shared)
        nn.Module.__init__(twin)
        twin.event_shape, twin.latent_shape, twin.context_shape = self.event_shape, self.latent_shape, None
        twin.log_scale, twin.weight = self.log_scale, None
        return twin


class Pusher(Good):
    def push(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return x


class NoTraits(Good):
    traits = {"closed_form": True}  # type: ignore[assignment]


class Sloppy(Good):
    """A solver that misses the tolerance it states."""

    traits = Traits(closed_form=False, tolerance=1e-9)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().inverse(y, context)
        return value + 1e-5, log_det


class NotQuite(Good):
    """A scalar map that loses float32 digits by going through a large number."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().forward(x, context)
        return (value + 1e3) - 1e3, log_det


class Overflows(Good):
    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().forward(x, context)
        return value, log_det + 0 * x.exp().sum(-1)


class Roulette(Good):
    """An estimate of the log-det in training, unbiased or not."""

    def __init__(self, bias: float = 0.0):
        super().__init__()
        self.bias = bias
        self.traits = replace(self.traits, exact_log_det=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        y, log_det = super().forward(x, context)
        if not self.training:
            return y, log_det
        return y, log_det * (1 + self.bias + 0.5 * torch.randn_like(log_det))


@pytest.mark.parametrize("context", [None, 2])
def test_a_good_kind_passes(context: int | None):
    check_bijection(Good(3, context))
    check_bijection(Good(1))


@pytest.mark.parametrize(
    "broken, rule",
    [
        (WrongSign(), "log_det"),
        (Mean(), "log_det"),
        (OneLogDet(), "pairs"),
        (NoLogDet(), "pairs"),
        (InPlace(), "inputs stay"),
        (Detached(), "gradients"),
        (NoGradInEval(), "gradients"),
        (HiddenNaN(), "NaN"),
        (NoNaN(), "NaN"),
        (Clamped(), "round trip"),
        (Deaf(3, 2), "context"),
        (Random(), "determinism"),
        (Cached(), "determinism"),
        (SingleOnly(), "dtypes"),
        (NoEmptyBatch(), "batch axes"),
        (OneAxisOnly(), "batch axes"),
        (MixesRows(), "batch axes"),
        (Kernel(), "second derivatives"),
        (SilentTangent(), "jvp"),
        (Branches(), "vmap and jacrev"),
        (Unbounded(), "outside the domain"),
        (HalfInterval(), "codomain"),
        (TwiceInitialized(), "state"),
        (Unsaved(), "state"),
        (Pusher(), "push and pull"),
        (NoTraits(), "declarations"),
        (Sloppy(), "round trip"),
        (NotQuite(1), "scalar precision"),
        (Overflows(), "large inputs"),
        (Roulette(bias=0.2), "estimates"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Bijection) else "",
)
def test_a_broken_bijection_is_caught_by_its_rule(broken: Bijection, rule: str):
    with pytest.raises(AssertionError, match=f"{type(broken).__name__} breaks '{rule}'"):
        check_bijection(broken, capture=False)


def test_an_unbiased_estimate_passes():
    check_bijection(Roulette(), capture=False)


def test_a_dead_element_of_the_context_is_named():
    torch.manual_seed(0)
    broken = DeafToOne(3, 2)
    with pytest.raises(AssertionError, match=r"ignores the context: its elements \[1\]"):
        check_bijection(broken, capture=False)


def test_what_torch_compile_cannot_capture_is_caught():
    class Prints(Good):
        def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
            torch._dynamo.graph_break()
            return super().forward(x, context)

    with pytest.raises(AssertionError, match="Prints breaks 'torch.compile'"):
        check_bijection(Prints())


def test_what_declares_less_is_held_to_less():
    class Modest(Branches):
        traits = Traits(capturable=False)

    check_bijection(Modest())


def test_a_shared_copy_is_caught():
    with pytest.raises(AssertionError, match="breaks 'state'"):
        check_bijection(Shared(), capture=False)


# -- families ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Falls(Affine):
    def forward(self, x: Tensor, params: Tensor) -> Pair:
        y, log_slope = super().forward(x, params)
        return -y, log_slope

    def inverse(self, y: Tensor, params: Tensor) -> Pair:
        return super().inverse(-y, params)


@dataclass(frozen=True)
class NotNeutral(Affine):
    def forward(self, x: Tensor, params: Tensor) -> Pair:
        return super().forward(x, params + 1)

    def inverse(self, y: Tensor, params: Tensor) -> Pair:
        return super().inverse(y, params + 1)


@dataclass(frozen=True)
class Unclipped(Affine):
    def forward(self, x: Tensor, params: Tensor) -> Pair:
        return x * (30 * params[..., 1]).exp() + params[..., 0], 30 * params[..., 1]

    def inverse(self, y: Tensor, params: Tensor) -> Pair:
        return (y - params[..., 0]) * (-30 * params[..., 1]).exp(), -30 * params[..., 1]


@dataclass(frozen=True)
class Textbook(RationalQuadratic):
    """The inverse by the quadratic formula, with its cancellation."""

    def inverse(self, y: Tensor, params: Tensor) -> Pair:
        x, log_slope = super().inverse(y, params)
        return (x + 7.0) - 7.0 + 0 * y, log_slope + 0 * torch.sqrt((x - x.detach()).square())


@dataclass(frozen=True)
class Leaks(PiecewiseLinear):
    def forward(self, x: Tensor, params: Tensor) -> Pair:
        y, log_slope = super().forward(x, params)
        return y, log_slope.clamp_min(-50.0)


@dataclass(frozen=True)
class Leaves(PiecewiseLinear):
    def forward(self, x: Tensor, params: Tensor) -> Pair:
        y, log_slope = super().forward(x, params)
        return y + 1e-5 * params.abs().sum(-1), log_slope


@dataclass(frozen=True)
class StopsEarly(Affine):
    """A numeric inverse, so it says, that stops too soon."""

    traits = Traits(closed_form=False, tolerance=1e-3)

    def inverse(self, y: Tensor, params: Tensor) -> Pair:
        x, log_slope = super().inverse(y, params)
        return x + 1e-4 * params[..., 0], log_slope


@pytest.mark.parametrize(
    "broken, rule",
    [
        (Falls(), "neutral start|increasing"),
        (NotNeutral(), "neutral start"),
        (Unclipped(), "scalar precision"),
        (Textbook(), "scalar precision|finite gradients"),
        (Leaks(), "outside the domain"),
        (Leaves(), "scalar precision|codomain"),
        (StopsEarly(), "certified inverse"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_a_broken_family_is_caught_by_its_rule(broken: Any, rule: str):
    with pytest.raises(AssertionError, match=f"{type(broken).__name__} breaks '({rule})'"):
        check_elementwise(broken, capture=False)


# -- bases, flows, encodings ---------------------------------------------------------------------------


class Unnormalized(Normal):
    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return super().log_prob(z) + 0.1


class WideSampler(Normal):
    def sample(
        self, batch_shape: Sequence[int] = (), context: Any = None, *, generator: Generator | None = None
    ) -> Tensor:
        return 1.1 * super().sample(batch_shape, generator=generator)


class GlobalNoise(Normal):
    def sample(
        self, batch_shape: Sequence[int] = (), context: Any = None, *, generator: Generator | None = None
    ) -> Tensor:
        return super().sample(batch_shape)


class Infinite(Normal):
    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return super().log_prob(z).nan_to_num(-math.inf)


@pytest.mark.parametrize(
    "kind, rule",
    [(Unnormalized, "normalization"), (WideSampler, "sampler"), (GlobalNoise, "sampler"), (Infinite, "NaN")],
)
def test_a_broken_base_is_caught_by_its_rule(kind: Any, rule: str):
    with pytest.raises(AssertionError, match=f"{kind.__name__} breaks '{rule}'"):
        check_base(kind((2,)))


class WrongSampleSign(Flow):
    def sample_and_log_prob(self, *args: Any, **kwargs: Any) -> Pair:
        x, log_prob = super().sample_and_log_prob(*args, **kwargs)
        return x, -log_prob


class Interleaved(Flow):
    def sample(self, *args: Any, **kwargs: Any) -> Tensor:
        x = super().sample(*args, **kwargs)
        return x if x.dim() < 3 else x.reshape(-1, *self.event_shape).flip(0).reshape(x.shape)


class Silencer(Flow):
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().log_prob(x, context).nan_to_num(-math.inf)


class Inflated(Flow):
    def _log_prob(self, v: Tensor, context: Tensor | None) -> Tensor:
        return super()._log_prob(v, context) + 0.3


class Far(Good):
    """The identity, as a difference that is NaN where both of its numbers are infinite."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Pair:
        value, log_det = super().forward(x, context)
        return 4 * value - 3 * value, log_det


def test_a_flow_that_is_nan_far_out_is_caught():
    check_flow(Flow(Good(2), Normal((2,))), samples=4000)
    with pytest.raises(AssertionError, match="Flow breaks 'never NaN'"):
        check_flow(Flow(Far(2), Normal((2,))), samples=4000)


class Lenient(Flow):
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().log_prob(x, None if self.context_shape is None else context)


@pytest.mark.parametrize(
    "kind, context, rule",
    [
        (WrongSampleSign, None, "samples"),
        (Interleaved, 2, "samples"),
        (Silencer, None, "NaN"),
        (Inflated, None, "sum of the parts"),
        (Lenient, None, "named errors"),
    ],
)
def test_a_broken_flow_is_caught_by_its_rule(kind: Any, context: int | None, rule: str):
    good = presets.MAF(2, context, layers=1, hidden=(8,)).build()
    broken = kind(good.bijection, good.base, None, good.context_encoding)
    with pytest.raises(AssertionError, match=f"Flow breaks '{rule}'"):
        check_flow(broken, samples=4000)


@pytest.mark.parametrize("features", [1, 2, 3])
def test_a_density_that_does_not_integrate_to_one_is_caught(features: int):
    broken = Flow(Mean(features) if features == 3 else WrongSign(features), Normal((features,)))
    with pytest.raises(AssertionError, match="breaks '(samples|normalization)'"):
        check_flow(broken)


class Stray(Normal):
    def sample(
        self, batch_shape: Sequence[int] = (), context: Any = None, *, generator: Generator | None = None
    ) -> Tensor:
        z = super().sample(batch_shape, generator=generator)
        z[50::100] *= 8
        return z


@pytest.mark.parametrize("features", [1, 2, 3])
def test_samples_that_stray_where_no_mass_is_are_caught(features: int):
    good = presets.MAF(features, layers=1, hidden=(8,)).build()
    with pytest.raises(AssertionError, match="breaks '.*far out"):
        check_flow(Flow(good.bijection, Stray((features,))))


class Wet(Columns):
    def decode(self, v: Tensor) -> Tensor:
        return v


def test_a_broken_encoding_is_caught_by_its_rule():
    columns = [Column("a", Continuous(), scale=2.0), Column("b", Positive())]
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0]], dtype=torch.float64)
    check_encoding(Columns(columns), x, outside=torch.tensor([[0.0, -1.0]], dtype=torch.float64))
    with pytest.raises(AssertionError, match="Wet breaks 'round trip'"):
        check_encoding(Wet(columns), x)
    with pytest.raises(AssertionError, match="Columns breaks 'outside the support'"):
        check_encoding(Columns(columns), x, outside=x)
