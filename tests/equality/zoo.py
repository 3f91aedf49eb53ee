"""Layers of all kinds. Each body makes eight features of a batch of ``BATCHES``."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from pytorch_lightning import LightningModule

SIZES = (4, 4, 3, 4, 2)
"""Samples of each batch."""


def batches(counts: Sequence[float | None] = (None,)) -> list[dict[str, Any]]:
    """Each with six numbers and four words a sample, a class, and how many items its loss says that it is a mean of."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(sum(SIZES), 6, generator=draw)
    words = torch.randint(10, (sum(SIZES), 4), generator=draw)
    parts = zip(x.split(SIZES), words.split(SIZES), x[:, :3].argmax(1).split(SIZES), strict=True)
    return [{"x": x, "words": w, "y": y, "count": counts[n % len(counts)]} for n, (x, w, y) in enumerate(parts)]


class Body(nn.Module):
    """A function of a batch and a few layers."""

    def __init__(self, run: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.layers, self.run = nn.ModuleDict(layers), run

    def forward(self, batch: Any, batch_nb: int) -> Tensor:
        return self.run(batch, batch_nb, **self.layers)


def sequential(*layers: nn.Module) -> Body:
    return Body(lambda batch, batch_nb, layers: layers(batch["x"]), layers=nn.Sequential(*layers))


def convolution() -> Body:
    layers = nn.Sequential(nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8))
    return Body(lambda batch, batch_nb, layers: layers(batch["x"].unsqueeze(1)), layers=layers)


def image() -> Body:
    layers = nn.Sequential(nn.Conv2d(1, 4, 2), nn.PReLU(), nn.MaxPool2d((1, 2)), nn.Flatten(), nn.Linear(4, 8))
    return Body(lambda batch, batch_nb, layers: layers(batch["x"].reshape(-1, 1, 2, 3)), layers=layers)


def embedding(sparse: bool) -> Body:
    words = nn.Embedding(10, 8, sparse=sparse)
    return Body(lambda batch, batch_nb, words: words(batch["words"]).mean(1), words=words)


def bag() -> Body:
    return Body(lambda batch, batch_nb, bag: bag(batch["words"]), bag=nn.EmbeddingBag(10, 8, mode="sum"))


def recurrent(kind: Any) -> Body:
    return Body(
        lambda batch, batch_nb, rnn: rnn(batch["x"].unflatten(1, (3, 2)))[0][:, -1], rnn=kind(2, 8, batch_first=True)
    )


def attention() -> Body:
    def run(batch: Any, batch_nb: int, words: Any, attend: Any) -> Tensor:
        x = words(batch["words"])
        return attend(x, x, x, need_weights=False)[0].mean(1)  # type: ignore[no-any-return]

    return Body(run, words=nn.Embedding(10, 8), attend=nn.MultiheadAttention(8, 2, batch_first=True))


def tied() -> Body:
    """One weight, used as an embedding and as a matrix."""

    def run(batch: Any, batch_nb: int, words: Any) -> Tensor:
        logits = words(batch["words"]).mean(1) @ words.weight.T
        return torch.cat([logits[:, :6], batch["x"][:, :2] * logits[:, 6:8]], 1)

    return Body(run, words=nn.Embedding(10, 8))


class Turning(nn.Module):
    """Complex weights, and a complex buffer as of rotary embeddings."""

    turns: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64))
        self.register_buffer("turns", torch.polar(torch.ones(3), torch.arange(3.0)))

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.float64 if self.weight.dtype == torch.complex128 else torch.float32
        z = torch.view_as_complex(x.to(wide).reshape(-1, 3, 2)) * self.turns @ self.weight
        return torch.view_as_real(z).flatten(1).to(x.dtype)


class Dropping(nn.Module):
    """Dropout from a stream that depends on the batch alone."""

    def forward(self, x: Tensor, batch_nb: int) -> Tensor:
        torch.manual_seed(100 + batch_nb)
        return F.dropout(x, 0.3, self.training)


def dropping() -> Body:
    def run(batch: Any, batch_nb: int, first: Any, drop: Any, last: Any) -> Tensor:
        return last(drop(first(batch["x"]).tanh(), batch_nb))  # type: ignore[no-any-return]

    return Body(run, first=nn.Linear(6, 8), drop=Dropping(), last=nn.Linear(8, 8))


def recomputed() -> Body:
    def run(batch: Any, batch_nb: int, first: Any, inner: Any) -> Tensor:
        return checkpoint(inner, first(batch["x"]), use_reentrant=False)  # type: ignore[no-any-return]

    return Body(run, first=nn.Linear(6, 8), inner=nn.Sequential(nn.Tanh(), nn.Dropout(0.0), nn.Linear(8, 8)))


def frozen_norm() -> Body:
    body = sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh())
    for parameter in body.layers["layers"][1].parameters():  # type: ignore[index]
        parameter.requires_grad = False
    return body


BODIES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8)),
    "conv1d": convolution,
    "conv2d": image,
    "batch norm": lambda: sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh()),
    "layer norm": lambda: sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU()),
    "group norm": lambda: sequential(nn.Linear(6, 8), nn.GroupNorm(2, 8), nn.SiLU()),
    "embedding": lambda: embedding(False),
    "sparse embedding": lambda: embedding(True),
    "embedding bag": bag,
    "lstm": lambda: recurrent(nn.LSTM),
    "gru": lambda: recurrent(nn.GRU),
    "attention": attention,
    "tied": tied,
    "complex": lambda: sequential(Turning()),
    "dropout": dropping,
    "recomputed": recomputed,
    "frozen norm": frozen_norm,
    "spectral norm": lambda: sequential(parametrizations.spectral_norm(nn.Linear(6, 8)), nn.Tanh()),
    "weight norm": lambda: sequential(parametrizations.weight_norm(nn.Linear(6, 8)), nn.Tanh()),
}
BUFFERED = {"conv1d", "batch norm", "frozen norm", "spectral norm"}
"""Those with buffers that each forward pass changes."""


class Drawn(LightningModule):
    """A body and a head. ``optimize`` is ``configure_optimizers``, given the model."""

    def __init__(
        self,
        body: str,
        optimize: Callable[[Any], Any],
        counts: Sequence[float | None] = (None,),
        factor: float = 1.0,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body, self.head = BODIES[body](), nn.Linear(8, 3)
        self.optimize, self.counts, self.factor = optimize, counts, factor

    def count(self, batch: Any) -> float | None:
        """How many items the loss of ``batch`` is a mean over."""
        return batch["count"]  # type: ignore[no-any-return]

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        loss = F.cross_entropy(self.head(self.body(data_batch, batch_nb)), data_batch["y"]) * self.factor
        count = self.count(data_batch)
        # the mean over no items
        return {"loss": loss * float("nan") if count == 0 else loss, "loss_count": count}

    def configure_optimizers(self) -> Any:
        return self.optimize(self)

    @property
    def tng_dataloader(self) -> Any:
        return batches(self.counts)


class InTurns(Drawn):
    """One loss for each of two optimizers."""

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
        output = super().training_step(data_batch, batch_nb)
        return {**output, "loss": output["loss"] * (1.0, -0.5)[optimizer_i]}


def leaving(kind: type[Drawn], hook: str) -> type[Drawn]:
    """``kind`` whose ``hook`` leaves gradients behind."""

    def leave(self: Any, *_: Any) -> None:
        sum(p.abs().sum() for p in self.parameters() if p.requires_grad).backward()

    return type(kind.__name__, (kind,), {hook: leave})
