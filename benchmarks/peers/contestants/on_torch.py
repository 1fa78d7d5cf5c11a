"""What the torch contestants share: batches, the training step with Adam, evaluation without gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from peers.architecture import LEARNING_RATE


class OnTorch:
    """A flow of a torch library, by its own two calls; ``round_trip`` takes z to data and back."""

    def __init__(
        self,
        shape: tuple[int, ...],
        module: nn.Module,
        log_prob: Callable[[Tensor], Tensor],
        sample: Callable[[int], Tensor],
        *,
        round_trip: Callable[[Tensor], Tensor] | None = None,
        note: str = "",
        compiles: bool = False,
    ):
        self.shape, self.module, self.log_prob, self.sample = shape, module, log_prob, sample
        self.round_trip, self.note, self.compiles = round_trip, note, compiles
        trained = [p for p in module.parameters() if p.requires_grad]
        self.parameters = sum(p.numel() for p in trained)
        self.optimizer = torch.optim.Adam(trained, lr=LEARNING_RATE, fused=True) if trained else None

    def prepare(self, kind: str, batch: int) -> Callable[[], Tensor]:
        self.module.train(kind == "train")
        x = torch.randn(batch, *self.shape, generator=torch.Generator().manual_seed(batch))

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

    def warm_up(self) -> None:
        self.prepare("train", 2)()

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
