"""Programs that steer their training, made by lot: own steps, batches without a loss, epochs and windows of so many
batches or samples, several loaders, metrics of an epoch, averaged weights, layers unfrozen, checkpoints by name."""

import itertools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, Unfreeze, WeightAveraging
from tests.faults.changing import Cutting

SIZE, NB_EPOCHS = 4, 3
NB = 26
"""Samples, by process: seven batches, the last one of two samples."""
NB_OTHER = 11
"""Those of a second loader: three batches."""
MOST = 7 * NB_EPOCHS
"""Batches of a program, at most, by process."""


def draw(seed: int) -> dict[str, Any]:
    """All that a program is made of, as plain data."""
    lot = random.Random(f"{seed}, steered")
    by_hand = seed % 2 == 0
    """Nothing is drawn at random, and steps are the Trainer's, so that a loop by hand can do the same."""
    manual = not by_hand and lot.random() < 0.3
    loaders = lot.choice(("one", "one", "dict", "list", "stream"))
    window: Any = lot.choice((1, 1, 2, 3, "samples", "tokens"))
    unfreezes = lot.random() < 0.3
    made: dict[str, Any] = {
        "seed": seed,
        "by_hand": by_hand,
        "manual": manual,
        "loaders": loaders,
        "mode": lot.choice(("longest", "shortest")),
        "shuffle": not by_hand and loaders != "stream",
        "workers": 0 if by_hand else lot.choice((0, 0, 2)),
        "most": lot.choice((3, 5)) if loaders == "stream" else lot.choice((None, None, 5)),
        "most_validated": lot.choice((None, 2)),
        "validates": lot.choice(("epochs", "batches", "batches", "no")),
        "validated": lot.choice(("one", "dict")),
        "every": lot.randint(2, 9),
        "window": 1 if manual else window,
        "nb_samples": lot.randint(5, 20),
        "counts": window == "tokens" or lot.random() < 0.3,
        "skips": lot.choice((None, None, 2, 3)),
        "averages": lot.choice((None, None, "ema", "swa")),
        "averages_from": lot.randint(1, 6),
        "averages_every": lot.randint(1, 3),
        "unfreezes": unfreezes and not manual,
        "norm": lot.random() < 0.4,
        "dropout": not by_hand and lot.random() < 0.5,
        "schedule": lot.choice(("no", "step", "epoch", "whole")),
        "frequency": lot.randint(1, 3),
        "metrics": lot.random() < 0.6,
        "reloads": lot.choice((None, None, 1, 2)),
        "files": lot.choice(("best", "batches", "named", "last")),
        "stops": None if by_hand else lot.choice((None, None, None, 0.9)),
        "save_every": lot.choice((1, 2, 3, 5)),
        "cuts": [(lot.choice(("kill", "term", "raise")), lot.randrange(1, 14)) for _ in range(lot.choice((1, 1, 2)))],
    }
    if made["validates"] == "no":
        made["files"] = lot.choice(("no", "batches"))
    if made["window"] in ("samples", "tokens") and made["schedule"] == "whole":
        made["schedule"] = "step"  # how many steps there are isn't known before
    if made["skips"] and made["schedule"] == "whole":
        made["schedule"] = "step"
    return made


class Samples(Dataset[Any]):
    """Of a task that ``nb`` samples say; ``stage`` is a number that they are shifted by."""

    def __init__(self, nb: int, seed: int) -> None:
        draws = torch.Generator().manual_seed(seed)
        self.x = torch.randn(nb, 6, generator=draws)
        self.y = self.x[:, :3].argmax(dim=1)
        self.tokens = torch.randint(1, 4, (nb,), generator=draws)
        self.stage = 0

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        return self.x[i] + 0.1 * self.stage, self.y[i], self.tokens[i]


class Endless(IterableDataset[Any]):
    def __init__(self, data: Samples) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return (self.data[i % len(self.data)] for i in itertools.count(first, step))


def tensors(batch: Any) -> list[Any]:
    """The batches of the loaders that a batch was made of."""
    if isinstance(batch, dict):
        return [batch["first"], batch["second"]]
    return list(batch) if isinstance(batch[0], (list, tuple)) else [batch]


class Steered(LightningModule):
    def __init__(self, made: dict[str, Any], nb_processes: int = 1) -> None:
        super().__init__()
        self.made = made
        if made["manual"]:
            self.automatic_optimization = False
        self.tng_loaders_mode = made["mode"]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8))
            self.norm = nn.BatchNorm1d(8) if made["norm"] else nn.Identity()
            self.drop = nn.Dropout(0.3 if made["dropout"] else 0.0)
            self.head = nn.Linear(8, 3)
        self.first, self.second = Samples(NB * nb_processes, 1), Samples(NB_OTHER * nb_processes, 2)
        self.nb_batches = 0

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.drop(self.norm(torch.tanh(self.body(x)))))
        return found

    def loss_of(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The mean over samples, or over tokens, and how many these are."""
        losses, counts = [], []
        for x, y, tokens in tensors(batch):
            each = F.cross_entropy(self(x.to(self.head.weight.dtype)), y, reduction="none")
            weights = tokens if self.made["counts"] else torch.ones_like(tokens)
            losses.append((each * weights).sum() / weights.sum())
            counts.append(weights.sum())
        return torch.stack(losses).sum(), torch.stack(counts).sum()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.skips(self.global_step):
            return None
        if self.made["manual"]:
            return self.own_steps(data_batch, batch_nb)
        loss, count = self.loss_of(data_batch)
        made: dict[str, Any] = {"loss": loss, "prog": {"shown": count}}
        if self.made["counts"]:
            made["loss_count"] = count
        if self.made["metrics"]:
            made["prog_epoch"] = {"twice": 2 * loss.detach(), "one": 1.0}
        return made

    def skips(self, step: int) -> bool:
        """Whether a batch contributes nothing."""
        return self.made["skips"] is not None and step % (self.made["skips"] + 1) == 1

    def own_steps(self, batch: Any, batch_nb: int) -> Any:
        for _ in range(1 + batch_nb % 2):
            self.manual_step(0, self.loss_of(batch)[0])
        if batch_nb % 3 == 0:
            loss = self.loss_of(batch)[0]
            self.manual_backward(loss)
            self.manual_step(1)
        return {"prog": {"shown": batch_nb}}

    # ------------------------------------------------------------------------------------------ the rest
    def configure_optimizers(self) -> Any:
        own = [p for p in self.parameters() if p.requires_grad]
        optimizers: list[Any] = [torch.optim.SGD(own, 0.05, momentum=0.9)]
        if self.made["manual"]:
            optimizers = [torch.optim.Adam(own[: len(own) // 2], 0.01), torch.optim.SGD(own[len(own) // 2 :], 0.05)]
        of, kind = torch.optim.lr_scheduler, self.made["schedule"]
        if kind == "no":
            return optimizers
        schedule: Any = {"scheduler": of.StepLR(optimizers[0], 2, 0.8), "interval": "step"}
        if kind == "whole":
            nb = self.trainer.nb_total_steps
            schedule["scheduler"] = (
                of.LinearLR(optimizers[0], 1.0, 0.1, total_iters=nb) if nb else schedule["scheduler"]
            )
        if kind == "epoch":
            schedule = {"scheduler": of.StepLR(optimizers[0], 1, 0.8), "interval": "epoch"}
        return optimizers, [{**schedule, "frequency": self.made["frequency"]}]

    def loader(self, data: Samples) -> Any:
        return DataLoader(data, SIZE, shuffle=self.made["shuffle"], num_workers=self.made["workers"])

    @property
    def tng_dataloader(self) -> Any:
        if self.made["reloads"]:
            self.first.stage = self.current_epoch
        if self.made["loaders"] == "stream":
            return DataLoader(Endless(self.first), SIZE, num_workers=self.made["workers"])
        if self.made["loaders"] == "dict":
            return {"first": self.loader(self.first), "second": self.loader(self.second)}
        if self.made["loaders"] == "list":
            return [self.loader(self.first), self.loader(self.second)]
        return self.loader(self.first)


class Validated(Steered):
    def validation_step(self, data_batch: Any, batch_nb: int, *which: Any) -> Any:
        return self.loss_of(data_batch)[0]

    def validation_end(self, outputs: Any) -> Any:
        found = outputs.values() if isinstance(outputs, dict) else [outputs]
        losses = [torch.stack(list(of_loader)).mean() for of_loader in found]
        return {"val_loss": torch.stack(losses).mean()}

    @property
    def val_dataloader(self) -> Any:
        loaders = [DataLoader(Samples(NB, 3), 8), DataLoader(Samples(NB_OTHER, 4), 8)]
        return dict(zip(("one", "two"), loaders, strict=True)) if self.made["validated"] == "dict" else loaders[0]


def model_of(made: dict[str, Any], nb_processes: int = 1) -> Steered:
    return (Steered if made["validates"] == "no" else Validated)(made, nb_processes)


def averaging_of(made: dict[str, Any]) -> Any:
    options = {"decay": 0.8} if made["averages"] == "ema" else {}
    return WeightAveraging(made["averages"], start=made["averages_from"], every=made["averages_every"], **options)


def keeper_of(made: dict[str, Any], folder: str) -> Any:
    kind = made["files"]
    if kind == "no":
        return None
    options: dict[str, Any] = {"best": {"save_top_k": 2}, "last": {"save_top_k": 1, "save_last": True}}.get(kind, {})
    if kind == "batches":
        options = {"every_nb_batches": made["every"], "save_top_k": -1}
    if kind == "named":
        options = {"save_top_k": 2, "filename": "{epoch}-{global_step}-{val_loss:.3f}"}
    if made["validates"] == "no":
        options["monitor"] = "tng_loss"
    return ModelCheckpoint(f"{folder}/best", **options)


def options_of(made: dict[str, Any], folder: str) -> dict[str, Any]:
    """The Trainer's options."""
    options: dict[str, Any] = {"max_nb_tng_batches": made["most"], "max_nb_val_batches": made["most_validated"]}
    if made["window"] in ("samples", "tokens"):
        options["accumulate_nb_samples"] = made["nb_samples"]
    else:
        options["accumulate_grad_batches"] = made["window"]
    if made["validates"] == "batches":
        options["val_every_nb_batches"] = made["every"]
    if made["reloads"]:
        options["reload_dataloaders_every_nb_epochs"] = made["reloads"]
    if made["stops"] and made["validates"] != "no":
        options["early_stop_callback"] = EarlyStopping("val_loss", stopping_threshold=made["stops"], patience=99)
    callbacks: list[Any] = [averaging_of(made)] if made["averages"] else []
    if made["unfreezes"]:
        callbacks.append(Unfreeze({"body.2": 1, "body": 2}, lr_factor=0.5))
    return {**options, "checkpoint_callback": keeper_of(made, folder), "callbacks": callbacks}


def train(
    folder: str, made: dict[str, Any], cut: Any = None, nb_processes: int = 1, rank: int = 0, **options: Any
) -> None:
    """The program: it resumes where it was. Writes what process ``rank`` ends with."""
    from pytorch_lightning import Trainer
    from pytorch_lightning.nested import map_tensors
    from pytorch_lightning.processes import own_piece
    from tests.faults.killing import digest

    torch.manual_seed(3)
    model = model_of(made, nb_processes)
    own = options_of(made, folder)
    callbacks = [*own.pop("callbacks"), *([] if cut is None else [Cutting(*cut)])]
    trainer = Trainer(
        seed=5,
        callbacks=callbacks,
        max_nb_epochs=NB_EPOCHS,
        default_save_path=folder,
        nb_sanity_val_steps=0,
        add_log_row_interval=2,
        save_every_nb_batches=made["save_every"],
        progress_bar=False,
        print_weights_summary=False,
        crash_bundle=False,
        precision="64" if made["by_hand"] else "32",
        resume="auto",
        **own,
        **options,
    )
    assert trainer.fit(model) == 1
    states: Any = [model.state_dict(), *(o.state_dict() for o in [*trainer.optimizers, *trainer.lr_schedulers])]
    states += [callback.state_dict() for callback in callbacks if isinstance(callback, WeightAveraging)]
    modes = [[p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]]
    progress = trainer.progress
    position: list[Any] = [progress.epoch, progress.global_step, progress.nb_optimizer_steps]
    position.append(progress.nb_validations)
    best = [(p.name, digest(torch.load(p)["state_dict"])) for p in sorted(Path(folder).glob("best/*"))]
    of_rank = f"-{rank}" if rank else ""
    torch.save(model.state_dict(), f"{folder}/weights{of_rank}.pt")
    end = {
        "state": digest([map_tensors(states, own_piece), modes]),
        "position": [*position, progress.stop_reason, best],
    }
    Path(folder, f"end{of_rank}.json").write_text(json.dumps(end))


# ------------------------------------------------------------------------------------------ by hand
def batches_of(made: dict[str, Any], loaders: Any) -> Iterator[Any]:
    """The batches of an epoch that nothing limits."""
    if isinstance(loaders, DataLoader):
        yield from loaders
        return
    each = list(loaders.values()) if isinstance(loaders, dict) else loaders
    lists = [list(loader) for loader in each]
    for i in range((max if made["mode"] == "longest" else min)(map(len, lists))):
        found = [batches[i % len(batches)] for batches in lists]
        yield dict(zip(loaders, found, strict=True)) if isinstance(loaders, dict) else found


def rounds_of(batches: Iterator[Any], nb: int, most: int | None) -> Iterator[list[Any]]:
    """A batch for each process; in the last round perhaps not for all."""
    found = iter(lambda: [*itertools.islice(batches, nb)], [])
    return itertools.islice(found, most)


def windows_of(made: dict[str, Any], rounds: Iterator[list[Any]], skips: Callable[[int], bool]) -> Iterator[list[Any]]:
    """The rounds of each optimizer step; ``skips`` says which of a window's rounds contribute nothing to it."""
    window: list[Any] = []
    for batches in rounds:
        window.append(batches)
        counted = [dealt for n, dealt in enumerate(window) if not skips(n)]
        parts = [part for dealt in counted for batch in dealt for part in tensors(batch)]
        size = sum(int(tokens.sum()) if made["counts"] else len(x) for x, _, tokens in parts)
        is_full = size >= made["nb_samples"] if isinstance(made["window"], str) else len(window) == made["window"]
        if is_full:
            yield window
            window = []
    if window:
        yield window


class ByHand:
    """What a loop by hand has for ``self.trainer``."""

    def __init__(self, nb_total_steps: int) -> None:
        self.nb_total_steps, self.current_epoch, self.global_step = nb_total_steps, 0, 0


class Loop:
    """The shortest loop that does the same in 64 bits, one model for all ``nb`` processes: ``run`` gives the weights,
    the values of ``val_loss`` in order, and those of ``twice``."""

    def __init__(self, made: dict[str, Any], nb: int = 1) -> None:
        torch.manual_seed(3)
        self.made, self.nb, self.model = made, nb, model_of(made, nb).double()
        self.trainer: Any = ByHand(self.nb_total_steps())
        self.model.trainer = self.trainer
        self.frozen = {"body.2": 1, "body": 2} if made["unfreezes"] else {}
        for name in self.frozen:
            self.model.get_submodule(name).requires_grad_(False)
        optimizers = self.model.configure_optimizers()
        (self.optimizer,), schedules = optimizers if isinstance(optimizers, tuple) else (optimizers, [])
        self.schedule = schedules[0] if schedules else None
        self.nb_steps = 0
        self.average: Any = None
        self.val_losses: list[float] = []
        self.means: list[float] = []

    def nb_total_steps(self) -> int:
        """Of all epochs; what is asked for is in plain windows of loaders with lengths."""
        made = self.made
        lengths = {"first": 7, "second": 3}  # rounds, whatever the number of processes
        nb = (max if made["mode"] == "longest" else min)(lengths.values()) if made["loaders"] in ("dict", "list") else 7
        nb = made["most"] if made["loaders"] == "stream" else nb if made["most"] is None else min(nb, made["most"])
        return NB_EPOCHS * -(-nb // made["window"]) if isinstance(made["window"], int) else 0

    def run(self) -> None:
        made, model, loaders, stream = self.made, self.model, None, None
        for epoch in range(NB_EPOCHS):
            self.trainer.current_epoch = epoch
            if loaders is None or (made["reloads"] and epoch % made["reloads"] == 0):
                loaders = model.tng_dataloader
                stream = iter(loaders) if made["loaders"] == "stream" else None
            self.unfreeze(epoch)
            model.train()
            self.totals = [0.0, 0.0]
            batches = stream if stream is not None else batches_of(made, loaders)
            rounds = rounds_of(batches, self.nb, made["most"])
            for window in windows_of(made, rounds, lambda n: model.skips(self.trainer.global_step + n)):
                before = self.trainer.global_step // made["every"]
                self.train_window(window)
                if made["validates"] == "batches" and self.trainer.global_step // made["every"] > before:
                    self.validate()  # one that falls due inside of a window comes at its end
            self.means.append(self.totals[0] / self.totals[1])
            if made["schedule"] == "epoch" and (epoch + 1) % made["frequency"] == 0:
                self.schedule["scheduler"].step()
            if made["validates"] == "epochs":
                self.validate()

    def unfreeze(self, epoch: int) -> None:
        for name, first in self.frozen.items():
            if first == epoch:
                parameters = [p for p in self.model.get_submodule(name).parameters() if not p.requires_grad]
                group = {**self.optimizer.param_groups[0], "params": parameters}
                for rate in ("lr", "initial_lr"):
                    if rate in group:
                        group[rate] = 0.5 * group[rate]
                for parameter in parameters:
                    parameter.requires_grad_(True)
                self.optimizer.add_param_group(group)
                if self.schedule:
                    self.schedule["scheduler"].base_lrs.append(group["initial_lr"])

    def train_window(self, window: list[Any]) -> None:
        made, model = self.made, self.model
        total = 0.0
        for n, dealt in enumerate(window):
            for batch in [] if model.skips(self.trainer.global_step) else dealt:
                loss, count = model.loss_of(batch)
                weight = float(count) if made["counts"] or isinstance(made["window"], str) else 1.0
                (loss * weight).backward()
                total += weight
                self.totals[0] += 2 * float(loss.detach()) * weight
                self.totals[1] += weight
            if n + 1 == len(window) and total:
                self.step(total)
            self.trainer.global_step += 1

    def step(self, total: float) -> None:
        made = self.made
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad /= total
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.nb_steps += 1
        if made["schedule"] in ("step", "whole") and self.nb_steps % made["frequency"] == 0:
            self.schedule["scheduler"].step()
        since = self.nb_steps - made["averages_from"]
        if made["averages"] and since >= 0 and since % made["averages_every"] == 0:
            kind = get_ema_multi_avg_fn(0.8) if made["averages"] == "ema" else get_swa_multi_avg_fn()
            if self.average is None:
                self.average = AveragedModel(self.model_alone(), multi_avg_fn=kind)
            self.average.update_parameters(self.model_alone())

    def model_alone(self) -> nn.Module:
        return nn.ModuleDict({"body": self.model.body, "norm": self.model.norm, "head": self.model.head})

    def validate(self) -> None:
        model, kept = self.model, {name: value.clone() for name, value in self.model.state_dict().items()}
        if self.average is not None:
            averaged = {f"{n}": v for n, v in self.average.module.state_dict().items() if n in kept}
            model.load_state_dict({**kept, **averaged})
        model.eval()
        loaders: Any = model.val_dataloader
        each = loaders.values() if isinstance(loaders, dict) else [loaders]
        with torch.no_grad():
            means = [
                torch.stack([model.loss_of(b)[0] for b in itertools.islice(loader, self.made["most_validated"])]).mean()
                for loader in each
            ]
        self.val_losses.append(float(torch.stack(means).mean()))
        model.load_state_dict(kept)
        model.train()
