"""What the libraries on PyTorch share: batches, the training step with Adam, evaluation without gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from peers.spec import LEARNING_RATE, Spec

FIT_STEPS, FIT_ROWS, FIT_RATE = 500, 512, 1e-2
STRENGTH, GAIN = 0.9, 3.0


class OnTorch:
    """A flow by its library's own calls; ``round_trip`` takes a batch there and back.

    ``log_prob(x)`` and, of a flow with a context, ``log_prob(x, c)``.
    """

    def __init__(
        self,
        spec: Spec,
        module: nn.Module,
        log_prob: Callable[..., Tensor],
        sample: Callable[[int], Tensor],
        *,
        latent: Callable[[Tensor], Tensor] | None = None,
        round_trip: Callable[[Tensor], Tensor] | None = None,
        note: str = "",
        compiles: bool = False,
    ):
        self.shape, self.module, self.log_prob, self.sample = spec.shape, module, log_prob, sample
        self.latent, self.round_trip, self.note, self.compiles = latent, round_trip, note, compiles
        trained = [p for p in module.parameters() if p.requires_grad]
        self.parameters = sum(p.numel() for p in trained)
        self.optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE, fused=True) if trained else None

    def batch(self, rows: int) -> Tensor:
        return torch.randn(rows, *self.shape, generator=torch.Generator().manual_seed(rows))

    def prepare(self, kind: str, batch: int) -> Callable[[], Tensor]:
        self.module.train(kind == "train")
        x = self.batch(batch)

        def train() -> Tensor:
            assert self.optimizer is not None
            self.optimizer.zero_grad()
            loss = -self.log_prob(x).mean()
            loss.backward()
            self.optimizer.step()
            return loss.detach()

        def error() -> Tensor:
            assert self.round_trip is not None
            return (self.round_trip(x) - x).abs().max()

        runs = {
            "log_prob": torch.no_grad()(lambda: self.log_prob(x)),
            "sample": torch.no_grad()(lambda: self.sample(batch)),
            "round_trip": torch.no_grad()(error),
            "train": train,
        }
        return runs[kind]

    def finite(self, result: Tensor) -> bool:
        return bool(torch.isfinite(result).all())


class Perceptron(nn.Sequential):
    """The plain net for libraries that take any; ``hidden_features`` scales nflows' softmax inputs."""

    def __init__(self, in_features: int, out_features: int, hidden: tuple[int, ...]):
        layers: list[nn.Module] = []
        for n, m in zip((in_features, *hidden), hidden, strict=False):
            layers += [nn.Linear(n, m), nn.ReLU()]
        super().__init__(*layers, nn.Linear(hidden[-1], out_features))
        self.hidden_features = hidden[-1]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(x)


@torch.no_grad()
def stir(module: nn.Module, by: float = 0.1) -> None:
    """Weights as after training: outputs that start at zero hide everything."""
    for parameter in (p for p in module.parameters() if p.requires_grad):
        parameter.add_(by * torch.randn_like(parameter))


@torch.no_grad()
def copy(theirs: Sequence[nn.Module], ours: Sequence[nn.Module]) -> None:
    """Weights and biases of linear layers, in order; activations among theirs are skipped."""
    linears = [layer for layer in theirs if not isinstance(layer, (nn.ReLU, nn.Tanh))]
    for a, b in zip(linears, ours, strict=True):
        b.weight.copy_(a.weight)  # type: ignore[operator]
        b.bias.copy_(a.bias)  # type: ignore[operator]


def fit_contractions(nets: Sequence[nn.Module], features: int, settle: Callable[[nn.Module], object]) -> None:
    """Fit net k to ``0.9 Q_k tanh(x)``, Q_k a random rotation: hardly less than a residual block may have.

    As residual flows start, their solvers have nothing to do. A net that keeps its Lipschitz bound comes only
    so near. ``settle`` is called after each step: whatever the library does there for the bound.
    """
    generator = torch.Generator().manual_seed(0)
    for net in nets:
        turn = torch.linalg.qr(torch.randn(features, features, generator=generator))[0]
        optimizer = torch.optim.Adam(net.parameters(), lr=FIT_RATE)
        for _ in range(FIT_STEPS):
            x = 2 * torch.randn(FIT_ROWS, features, generator=generator)
            optimizer.zero_grad()
            (net(x) - STRENGTH * x.tanh() @ turn).square().mean().backward()
            optimizer.step()
            settle(net)


def field(spec: Spec) -> list[nn.Linear]:
    """The layers of a continuous flow's field: torch's own start, weights three times as large.

    The first layer's columns are those of the time, then those of x. With tanh between them this moves points
    by some 0.8 and turns corners: what a trained flow does.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        layers = [nn.Linear(n, m) for n, m in spec.products(0)]
        for layer in layers:
            layer.weight.mul_(GAIN)
        return layers
