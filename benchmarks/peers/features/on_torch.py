"""Probes that libraries on PyTorch take alike, on flows of their adapters, and what their own share."""

from __future__ import annotations

import math
from collections.abc import Callable

import kit
import torch
from torch import Tensor, nn

from peers.features import NO, PARTLY, YES, Seen, stated, verdict_of_times
from peers.libraries import ENTRIES
from peers.libraries.on_torch import OnTorch, stir
from peers.spec import BOUND, Spec, Unsupported

FOUR = {
    "affine coupling": "RealNVP",
    "affine autoregressive": "MAF",
    "spline coupling": "CouplingNSF",
    "spline autoregressive": "NSF",
}
BY_HAND = stated(PARTLY, "of parts: samples with log-density and gradients; the loss and the loop by hand")


def small(library: str, model: str, features: int, layers: int, context: int = 0) -> OnTorch:
    """A flow of the library, its weights as after training."""
    built = ENTRIES[library].adapter.build(Spec(model, features, layers, (32,), context, usual=True))
    stir(built.module)
    return built


def close(found: Tensor, x: Tensor, what: str) -> Seen:
    error = float((found - x).abs().max())
    return (YES if error < 1e-3 else NO), f"{what}, back to {error:.0e}"


# -- of every library ---------------------------------------------------------------------------------


def log_det(library: str) -> Seen:
    torch.set_default_dtype(torch.float64)
    try:
        built = small(library, "RealNVP", 4, 3)
        differences = []
        for row in torch.randn(6, 4):
            jacobian = torch.autograd.functional.jacobian(lambda t: built.latent(t[None])[0], row)
            z = built.latent(row[None])[0]
            wanted = -0.5 * z.square().sum() - 2 * math.log(2 * math.pi) + torch.linalg.slogdet(jacobian)[1]
            differences.append((built.log_prob(row[None])[0] - wanted).abs().detach())
        worst = float(torch.stack(differences).max())  # not a number, if one is
    finally:
        torch.set_default_dtype(torch.float32)
    return (YES if worst < 1e-8 else NO), f"largest difference {worst:.0e}"


def context(library: str) -> Seen:
    has, lacks = [], []
    for called, model in FOUR.items():
        try:
            built = small(library, model, 3, 2, context=2)
            x, c = torch.randn(1, 3).expand(5, 3), torch.randn(5, 2)
            follows = built.log_prob(x, c).std() > 1e-6
        except Unsupported:
            follows = False
        (has if follows else lacks).append(called)
    seen = "all four" if not lacks else f"without: {', '.join(lacks)}"
    return (YES if not lacks else PARTLY if has else NO), seen


@torch.no_grad()
def both_ways(library: str) -> Seen:
    built = small(library, "MAF", 32, 5)
    built.module.eval()
    x = torch.randn(256, 32)
    times = kit.by_turns({"score": lambda: built.log_prob(x), "draw": lambda: built.sample(256)}, 12)
    return verdict_of_times(times)


def compiled(library: str) -> Seen:
    built, x = small(library, "CouplingNSF", 4, 2), torch.randn(5, 4)
    torch._dynamo.reset()
    capture = torch.compile(lambda x: built.log_prob(x), fullgraph=True, backend="eager")
    try:
        found = capture(x)
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError) as error:
        return NO, f"{type(error).__name__}: {' '.join(str(error).split('Explanation')[0].split())[:70]}"
    assert torch.allclose(found, built.log_prob(x), atol=1e-5)
    return YES, "one graph"


def memory(library: str) -> Seen:
    return growth(*(small(library, "RealNVP", 8, layers) for layers in (4, 16)))


def growth(few: OnTorch, many: OnTorch, where: str = "") -> Seen:
    ratio = kept(many) / kept(few)
    return (YES if ratio < 1.5 else NO), f"{ratio:.1f} times as much{where}"


def kept(built: OnTorch) -> int:
    """Bytes that the graph of the loss keeps, the weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in built.module.parameters()}
    sizes: dict[int, int] = {}
    held: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    built.module.train()
    x = torch.randn(512, 8)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = built.log_prob(x).mean()
    loss.backward()
    return sum(sizes.values())


def deterministic(library: str, **others: tuple[nn.Module, Callable[[Tensor], Tensor]]) -> Seen:
    """Of its couplings, and of flows that its own probe brings."""
    flows = {}
    for model in ("affine coupling", "spline coupling"):
        try:
            built = small(library, FOUR[model], 4, 2)
            flows[f"{model}s"] = built.module, built.log_prob
        except Unsupported:
            continue
    same, random = [], []
    for name, (module, log_prob) in {**flows, **others}.items():
        module.eval()
        x = torch.randn(20, 4)
        (same if torch.equal(log_prob(x), log_prob(x)) else random).append(name)
    seen = f"the same twice: {', '.join(same) or 'none'}"
    seen += f"; random: {', '.join(random)}" if random else ""
    return (YES if not random else PARTLY if same else NO), seen


def program(library: str) -> Seen:
    flow = small(library, "RealNVP", 4, 1).module
    assert not isinstance(flow, torch.distributions.Distribution)
    return NO, f"its `{type(flow).__name__}` is no distribution of `torch.distributions`"


def tried(probe: Callable[[str], Seen]) -> Callable[[str], Seen]:
    """A library without the probe's flow has not the feature."""

    def run(library: str) -> Seen:
        try:
            return probe(library)
        except Unsupported as reason:
            return NO, str(reason)

    return run


COMMON: dict[str, Callable[[str], Seen]] = {
    "log_det": log_det,
    "context": context,
    "both_ways": tried(both_ways),
    "compile": tried(compiled),
    "memory": memory,
    "deterministic": deterministic,
    "program": program,
}

# -- of some ------------------------------------------------------------------------------------------


def round_trips(forward: Callable, inverse: Callable) -> Seen:
    """``forward(x, w, h, d)`` to (y, log_slope), for logits of ±10 on a box of half-width B."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 2, (200, 1, 23), generator=g) * 20.0 - 10.0
    x = torch.linspace(-0.9997 * BOUND, 0.9997 * BOUND, 101).expand(200, 101).contiguous()
    params = logits.expand(200, 101, 23).contiguous().split([8, 8, 7], -1)
    y, log_slope = forward(x, *params)
    try:
        back = inverse(y, *params)
    except (AssertionError, RuntimeError, ValueError) as error:
        return NO, f"the inverse raises {type(error).__name__}"
    error, bad = (back - x).abs(), int((~back.isfinite()).sum())
    bound = 64 * torch.finfo(torch.float32).eps * BOUND * (1 + (-log_slope.double()).exp())
    beyond = int((~(error <= bound)).sum())
    worst = float(error[back.isfinite()].max())
    seen = f"{bad} of {x.numel():,} not finite, {beyond} beyond the bound, largest error {worst:.0e}"
    return (YES if not beyond else NO), seen


def round_trips_of(spline: Callable) -> Seen:
    """Of nflows' function, and of normflows' copy of it."""
    return round_trips(
        lambda x, *p: spline(x, *p, tail_bound=BOUND),
        lambda y, *p: spline(y, *p, inverse=True, tail_bound=BOUND)[0],
    )


def from_afar(there_and_back: Callable[[Tensor], Tensor]) -> Seen:
    x = torch.tensor([[40.0], [-40.0]])
    back = there_and_back(x).detach()
    error = float(((back - x) / x).abs().max())
    return (YES if error < 1e-3 else NO), f"inverse of f(40): {float(back.max()):.4g}"


def site_of_pyro(flow: Callable[[], torch.distributions.Distribution]) -> None:
    """A step of SVI with the flow as the guide's site, by the adapter in Pyro's tree."""
    import pyro
    from pyro.contrib.zuko import ZukoToPyro
    from pyro.infer import SVI, Trace_ELBO

    def model() -> None:
        x = pyro.sample("x", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("y", pyro.distributions.Normal(x[..., 0], 1.0), obs=torch.tensor(0.5))

    def guide() -> None:
        pyro.sample("x", ZukoToPyro(flow()))

    assert math.isfinite(SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step())
