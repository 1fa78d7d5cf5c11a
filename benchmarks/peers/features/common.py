"""Probes that every library on PyTorch takes alike, on the flows of ``kits``."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from peers.features import NO, PARTLY, YES, Seen
from peers.features.kits import KITS, Built, Missing
from peers.features.times import by_turns, verdict_of_times

FOUR = [(spline, coupling) for spline in (False, True) for coupling in (True, False)]


def called(spline: bool, coupling: bool) -> str:
    return f"{'spline' if spline else 'affine'} {'coupling' if coupling else 'autoregressive'}"


def log_det(library: str) -> Seen:
    torch.set_default_dtype(torch.float64)
    try:
        built = KITS[library](4, 3, spline=False, coupling=True)
        x = torch.randn(6, 4)
        differences = []
        for row in x:
            jacobian = torch.autograd.functional.jacobian(lambda t: built.latent(t[None])[0], row)
            z = built.latent(row[None])[0]
            wanted = -0.5 * z.square().sum() - 2 * math.log(2 * math.pi) + torch.linalg.slogdet(jacobian)[1]
            differences.append((built.log_prob(row[None], None)[0] - wanted).abs().detach())
        worst = float(torch.stack(differences).max())  # not a number, if one is
    finally:
        torch.set_default_dtype(torch.float32)
    return (YES if worst < 1e-8 else NO), f"largest difference {worst:.0e}"


def context(library: str) -> Seen:
    has, lacks = [], []
    for spline, coupling in FOUR:
        try:
            built = KITS[library](3, 2, spline=spline, coupling=coupling, context=2)
            x, c = torch.randn(1, 3).expand(5, 3), torch.randn(5, 2)
            follows = built.log_prob(x, c).std() > 1e-6
        except Missing:
            follows = False
        (has if follows else lacks).append(called(spline, coupling))
    return (YES if not lacks else PARTLY if has else NO), (
        "all four" if not lacks else f"without: {', '.join(lacks)}"
    )


@torch.no_grad()
def both_ways(library: str) -> Seen:
    try:
        built = KITS[library](32, 5, spline=False, coupling=False)
    except Missing as reason:
        return NO, str(reason)
    built.module.eval()
    x = torch.randn(256, 32)
    return verdict_of_times(*by_turns(lambda: built.log_prob(x, None), lambda: built.sample(256)))


def compiled(library: str) -> Seen:
    try:
        built = KITS[library](4, 2, spline=True, coupling=True)
    except Missing as reason:
        return NO, str(reason)
    torch._dynamo.reset()
    x = torch.randn(5, 4)
    capture = torch.compile(lambda x: built.log_prob(x, None), fullgraph=True, backend="eager")
    try:
        found = capture(x)
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError) as error:
        return NO, f"{type(error).__name__}: {' '.join(str(error).split('Explanation')[0].split())[:70]}"
    assert torch.allclose(found, built.log_prob(x, None), atol=1e-5)
    return YES, "one graph"


def memory(library: str) -> Seen:
    if library == "diffeo":
        return reversible()
    few, many = (kept(KITS[library](8, n, spline=False, coupling=True)) for n in (4, 16))
    return (YES if many / few < 1.5 else NO), f"{many / few:.1f} times as much"


def reversible() -> Seen:
    from diffeo import Flow, bases
    from diffeo.bijections import Chain, Coupling, Reversible
    from diffeo.elementwise import Affine
    from diffeo.nets import MLP

    def built(layers: int) -> Built:
        masks = [[(i + k) % 2 == 0 for i in range(8)] for k in range(layers)]
        chain = Chain([Coupling(mask, MLP(4, 8, (32,)), Affine()) for mask in masks])
        flow = Flow(Reversible(chain), bases.Normal((8,)))
        return Built(flow, flow.log_prob, flow.sample, flow.to_latent)

    ratio = kept(built(16)) / kept(built(4))
    return (YES if ratio < 1.5 else NO), f"{ratio:.1f} times as much, in `Reversible`"


def kept(built: Built) -> int:
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
        loss = built.log_prob(x, None).mean()
    loss.backward()
    return sum(sizes.values())


def deterministic(flows: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]]) -> Seen:
    same, random = [], []
    for name, (module, log_prob) in flows.items():
        module.eval()
        x = torch.randn(20, 4)
        (same if torch.equal(log_prob(x), log_prob(x)) else random).append(name)
    seen = f"the same twice: {', '.join(same) or 'none'}"
    return (YES if not random else PARTLY if same else NO), (
        f"{seen}; random: {', '.join(random)}" if random else seen
    )


def close(found: Tensor, x: Tensor, what: str) -> Seen:
    error = float((found - x).abs().max())
    return (YES if error < 1e-3 else NO), f"{what}, back to {error:.0e}"


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

    loss = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step()
    assert math.isfinite(loss)


COMMON = {
    "log_det": log_det,
    "context": context,
    "both_ways": both_ways,
    "compile": compiled,
    "memory": memory,
}
