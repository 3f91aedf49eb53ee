"""This library, with everything on that is on by default."""

import gc
import resource
import statistics
import tempfile
import time
from typing import Any

import torch
from torch import nn

from benchmarks import workloads as w
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

PLACE = {} if w.DEVICE.type == "cpu" else {"gpus": [0]}


def fit(model: LightningModule, **options: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Trainer(**{"max_nb_epochs": 1, "default_save_path": folder, **PLACE, **options}).fit(model)


class Regression(LightningModule):
    def __init__(self, loader: Any, nb_values: int = 0) -> None:
        super().__init__()
        self.net, self.criterion, self.loader = w.w1_network(), nn.MSELoss(), loader
        self.names = [f"value_{i}" for i in range(nb_values)]

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        loss = self.criterion(self.net(x), y)
        if not self.names:
            return {"loss": loss}
        return {"loss": loss, "prog": dict.fromkeys(self.names, loss)}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self) -> Any:
        return self.loader


class Evaluated(Regression):
    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        return self.criterion(self.net(x), y)

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack(outputs).mean()}

    @property
    def val_dataloader(self) -> Any:
        return self.loader


def W1(nb: int) -> None:
    fit(Regression(w.w1_loader(nb)))


def W1list(nb: int) -> None:
    fit(Regression(w.w1_batches(nb)))


def PROG(nb: int) -> dict[str, float]:
    """Microseconds that a step takes longer by the first logged value, by each further one, and by 50 than by one."""
    batches, spent = w.w1_batches(nb), dict[int, list[float]]()
    for number in [0, 1, 11, 50] * 7:
        gc.collect()
        start = time.process_time()
        fit(Regression(batches, number))
        spent.setdefault(number, []).append((time.process_time() - start) * 1e6 / nb)

    def more(number: int, than: int) -> float:
        return statistics.median(a - b for a, b in zip(spent[number], spent[than], strict=True))

    return {"first_us": more(1, 0), "further_us": more(11, 1) / 10, "fifty_us": more(50, 1)}


def W4(nb: int) -> None:
    Trainer(experiment=False, **PLACE).validate(Evaluated(w.w1_loader(nb, shuffle=False)))


class Classifier(LightningModule):
    def __init__(self, nb: int) -> None:
        super().__init__()
        self.net, self.nb = w.w2_network(), nb

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        return {"loss": nn.functional.cross_entropy(self.net(x), y)}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.training_step(data_batch, batch_nb)["loss"]

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack(outputs).mean()}

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters())

    @property
    def tng_dataloader(self) -> Any:
        return w.w2_loader(self.nb)

    @property
    def val_dataloader(self) -> Any:
        return w.w2_loader(w.W2_VALIDATION, shuffle=False)


def W2(nb: int, model: Classifier | None = None, **options: Any) -> None:
    with tempfile.TemporaryDirectory() as kept:
        fit(
            model or Classifier(max(1, nb // w.W2_EPOCHS)),
            max_nb_epochs=w.W2_EPOCHS,
            checkpoint_callback=ModelCheckpoint(kept),
            nb_sanity_val_steps=0,
            **options,
        )


class Writer(LightningModule):
    def __init__(self, nb: int, large: bool = False) -> None:
        super().__init__()
        self.net, self.nb = w.w3_network(large), nb
        self.starts = w.Starts(nb)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        return {"loss": w.w3_loss(self.net(x), y)}

    def on_epoch_start(self) -> None:
        self.starts.mark()

    def on_batch_end(self) -> None:
        if self.global_step % 2:
            self.starts.mark()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)

    @property
    def tng_dataloader(self) -> Any:
        return w.w3_loader(self.nb)


def W3(nb: int, large: bool = False, compiled: bool = False) -> dict[str, float]:
    model = Writer(nb, large)
    fit(model, gradient_clip=1.0, accumulate_grad_batches=2, compile=compiled)
    return w.steady(model.starts)


def W3large(nb: int) -> dict[str, float]:
    return W3(nb, large=True)


def W3compiled(nb: int) -> dict[str, float]:
    return W3(nb, compiled=True)


def W3largecompiled(nb: int) -> dict[str, float]:
    return W3(nb, large=True, compiled=True)


class Large(LightningModule):
    def __init__(self, nb: int) -> None:
        super().__init__()
        self.net, self.nb = w.ck_network(), nb
        self.starts: list[float] = []

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.starts.append(time.perf_counter())
        return {"loss": self.net(data_batch).pow(2).mean()}

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters())

    @property
    def tng_dataloader(self) -> Any:
        return w.ck_batches(self.nb)


def stalled(nb: int) -> dict[str, float]:
    """Milliseconds that the loop stands still for a save, which is durable a while later."""
    model = Large(nb)
    fit(model, save_every_nb_batches=10)
    return w.stall(model.starts)


class Marked(Regression):
    """Notes the processor's time and the memory at four places."""

    def __init__(self, nb: int) -> None:
        super().__init__(w.w1_batches(1) * nb, 1)
        self.places = [nb // 50, nb // 25, nb - nb // 50, nb - 1]
        self.marks: list[tuple[float, int]] = []

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if batch_nb in self.places:
            gc.collect()
            self.marks.append((time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
        return super().training_step(data_batch, batch_nb)


def GROWTH(nb: int) -> dict[str, float]:
    """The cost of a late step for each of an early one, and the MB that were added in between."""
    model = Marked(nb)
    fit(model)
    (a, memory), (b, _), (c, _), (d, memory_after) = model.marks
    places = model.places
    early, late = (b - a) / (places[1] - places[0]), (d - c) / (places[3] - places[2])
    return {"early_us": early * 1e6, "late_us": late * 1e6, "value": late / early, "mb": (memory_after - memory) / 1024}
