"""Small models that have what makes several processes hard."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule


def data(nb: int, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(nb, 8, generator=generator)
    return TensorDataset(x, x[:, :1] + 0.1 * torch.randn(nb, 1, generator=generator), torch.arange(nb))


class Net(LightningModule):
    """BatchNorm and dropout; 9 batches of training data, the last one short, and 7 of validation."""

    optimizer: Any = staticmethod(lambda parameters: torch.optim.Adam(parameters, 1e-2))
    nb_tng, nb_val = 70, 50

    def __init__(self, hparams: Any = None) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 7), nn.Linear(7, 1)
        )
        self.seen: list[Any] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def loss(self, batch: Any) -> Tensor:
        return (self(batch[0]) - batch[1]).pow(2).mean()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.seen.append((batch_nb, data_batch[2].tolist()))
        loss = self.loss(data_batch)
        return {"loss": loss, "prog": {"own": loss}}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"sum": (self(data_batch[0]) - data_batch[1]).pow(2).sum(), "nb": len(data_batch[0]), "batch": batch_nb}

    def validation_end(self, outputs: Any) -> Any:
        total = sum(output["nb"] for output in outputs)
        in_order = [output["batch"] for output in outputs] == sorted(output["batch"] for output in outputs)
        return {"val_loss": sum(o["sum"] for o in outputs) / total, "nb_val": total, "in_order": float(in_order)}

    def configure_optimizers(self) -> Any:
        return [self.optimizer(self.parameters())]

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(data(self.nb_tng), batch_size=8, shuffle=True)

    @property
    def val_dataloader(self) -> Any:
        return DataLoader(data(self.nb_val, 1), batch_size=8)

    @property
    def test_dataloader(self) -> Any:
        return DataLoader(data(41, 2), batch_size=8)


class Small(Net):
    """Evaluated on few samples, two in a batch."""

    @property
    def val_dataloader(self) -> Any:
        return DataLoader(data(self.nb_val, 1), batch_size=2)


class Sgd(Net):
    optimizer = staticmethod(lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9))


class Smooth(Sgd):
    """Without BatchNorm and dropout, so that a plain loop can give the same weights."""

    def __init__(self, hparams: Any = None) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))


class Counted(Net):
    """A loss that is a mean over some of the batch's items only."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        chosen = data_batch[2] % 3 != 0
        losses = (self(data_batch[0]) - data_batch[1]).pow(2)[chosen]
        return {"loss": losses.mean(), "loss_count": int(chosen.sum())}


class TwoOptimizers(Net):
    """One loss, two optimizers."""

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.Adam(self.net[0].parameters(), 1e-2),
            torch.optim.SGD([*self.net[1].parameters(), *self.net[4].parameters(), *self.net[5].parameters()], 0.1),
        ]


class SeesNothing(TwoOptimizers):
    """Notes what is the same in every process, and not which batches were its own."""

    def __init__(self, hparams: Any = None) -> None:
        super().__init__()
        self.ends: list[int] = []

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self.loss(data_batch)}

    def validation_end(self, outputs: Any) -> Any:
        self.ends.append(len(outputs))
        return super().validation_end(outputs)


class Gan(Net):
    """A step per optimizer; each has parameters that the other's loss reaches too."""

    def __init__(self, hparams: Any = None) -> None:
        super().__init__()
        self.judge = nn.Linear(1, 1)

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:
        judged = self.judge(self(data_batch[0]))
        return {"loss": judged.pow(2).mean() if optimizer_i == 0 else (1 - judged).pow(2).mean()}

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(self.net.parameters(), 1e-2), torch.optim.SGD(self.judge.parameters(), 0.1)]


class Scheduled(Net):
    def configure_optimizers(self) -> Any:
        adam = torch.optim.Adam(self.net[0].parameters(), 1e-2)
        sgd = torch.optim.SGD(self.net[1:].parameters(), 0.1)
        return [adam, sgd], [
            {"scheduler": torch.optim.lr_scheduler.StepLR(adam, 2, 0.9), "interval": "step"},
            torch.optim.lr_scheduler.StepLR(sgd, 1, 0.5),
            torch.optim.lr_scheduler.ReduceLROnPlateau(sgd, patience=0, threshold=10.0),
        ]


class Lbfgs(Smooth):
    optimizer = staticmethod(lambda parameters: torch.optim.LBFGS(parameters, 0.1, max_iter=3))


class Waits(Net):
    """Steps at every second turn, so that the gradients of two windows add up."""

    def optimizer_step(self, epoch_nb: int, batch_nb: int, optimizer: Any, optimizer_i: int) -> None:
        if batch_nb % 2:
            optimizer.step()


class EndsEarly(Net):
    """A hook that sees one batch in one process ends the epoch for all."""

    def on_batch_start(self, data_batch: Any) -> Any:
        return -1 if 11 in data_batch[2].tolist() else None


def some_none(samples: Any) -> Any:
    batch = torch.utils.data.default_collate(samples)
    return None if int(batch[2].sum()) % 3 == 0 else batch


class SkipsBatches(Net):
    """Some batches are None."""

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(data(self.nb_tng), batch_size=8, shuffle=True, collate_fn=some_none)

    @property
    def val_dataloader(self) -> Any:
        return DataLoader(data(self.nb_val, 1), batch_size=8, collate_fn=some_none)


class OneBatch(Net):
    """Fewer batches than processes, in training and in validation."""

    nb_tng, nb_val = 8, 8


class Unused(Smooth):
    def __init__(self, hparams: Any = None) -> None:
        super().__init__()
        self.forgotten = nn.Linear(3, 3)


class Numbers(torch.utils.data.IterableDataset):
    def __iter__(self) -> Any:
        return iter([data(70)[i] for i in torch.randperm(70).tolist()])


class Streamed(Net):
    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Numbers(), batch_size=8)

    @property
    def val_dataloader(self) -> Any:
        return DataLoader(Numbers(), batch_size=8)


class Listed(Net):
    @property
    def tng_dataloader(self) -> Any:
        return [data(70)[i : i + 8] for i in range(0, 70, 8)]

    @property
    def val_dataloader(self) -> Any:
        return [data(50, 1)[i : i + 8] for i in range(0, 50, 8)]


class Backwards:
    """A batch sampler with lengths of its own, which draws from torch's stream."""

    def __iter__(self) -> Any:
        order = torch.randperm(70).tolist()
        return iter([order[i : i + 5 + i % 3] for i in range(60, -1, -7)])

    def __len__(self) -> int:
        return 9


class OwnBatches(Net):
    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(data(70), batch_sampler=Backwards())


class WithDistributedSampler(Net):
    @property
    def tng_dataloader(self) -> Any:
        sampler = torch.utils.data.DistributedSampler(data(70), 2, 0, shuffle=True, seed=3)
        return DataLoader(data(70), batch_size=8, sampler=sampler)


class SeveralSets(Net):
    """Two validation sets of different lengths."""

    def validation_step(self, data_batch: Any, batch_nb: int, dataloader_i: int) -> Any:
        return (self(data_batch[0]) - data_batch[1]).pow(2).sum() * (dataloader_i + 1)

    def validation_end(self, outputs: Any) -> Any:
        return {f"val_{i}": sum(values) / len(values) for i, values in enumerate(outputs)}

    @property
    def val_dataloader(self) -> Any:
        return [DataLoader(data(8, 1), batch_size=8), DataLoader(data(33, 2), batch_size=8)]


class Tied(Smooth):
    """One weight in two places, beside a block that is a group of its own."""

    def __init__(self, hparams: Any = None) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.outer.weight = self.inner.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.outer(torch.tanh(self.inner(x))))


class BadGradient(Smooth):
    """A finite loss whose gradient isn't, for one parameter."""

    def __init__(self, hparams: Any = None) -> None:
        super().__init__()
        self.root = nn.Parameter(torch.tensor([0.0, 1.0, 1.0]))  # one piece of two is bad

    def loss(self, batch: Any) -> Tensor:
        return super().loss(batch) + self.root.sqrt().sum()


class Scalar(Smooth):
    def __init__(self, hparams: Any = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * self.scale
