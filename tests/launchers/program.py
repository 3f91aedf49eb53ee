"""A program that trains a small model and may send a signal to itself, to its group or to its parent."""

import contextlib
import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pytorch_lightning import LightningModule, Trainer


class Drawn(Dataset[Any]):
    """Samples with a random part. ``send`` is called for a sample of the second epoch's batches."""

    def __init__(self, sender: "Sender | None" = None) -> None:
        self.sender = sender

    def __len__(self) -> int:
        return 42

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        if i == 7 and self.sender is not None:
            self.sender.look("sample", 1)
        return torch.full((4,), i / 42), torch.rand(1)


class Sender:
    """Sends signals ``times`` times at the first visit of ``(place, number)``."""

    def __init__(self, place: str = "", number: int = 0, to: str = "self", signals: tuple[str, ...] = ()) -> None:
        self.at, self.to, self.signals, self.nb_ranks = (place, number), to, signals, 0

    def look(self, place: str, number: int) -> None:
        """Send them here, if this is the place."""
        if (place, number) != self.at or (self.to == "rank 1" and os.environ.get("RANK") != "1"):
            return
        if self.to in ("parent", "group") and os.environ.get("RANK", "0") != "0":
            return
        self.at = ("", 0)
        for name in self.signals:
            if self.to == "group":
                os.killpg(0, getattr(signal, name))
            elif self.to == "group, from outside":  # workers obey the process that trains
                subprocess.run(["kill", "-s", name.removeprefix("SIG"), "--", f"-{os.getpgid(0)}"])
            else:
                os.kill(os.getppid() if self.to == "parent" else os.getpid(), getattr(signal, name))


class Model(LightningModule):
    def __init__(self, sender: Sender, workers: int, context: str | None) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.sender, self.workers, self.context = sender, workers, context
        self.nb_saves = self.nb_validated = 0

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.sender.look("step", self.trainer.global_step)
        return {"loss": (self.net(data_batch[0]) - data_batch[1]).pow(2).mean()}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.trainer.global_step:
            self.nb_validated += 1
            self.sender.look("validation", self.nb_validated)
        else:
            self.sender.look("sanity", batch_nb)
        return {"loss": (self.net(data_batch[0]) - data_batch[1]).pow(2).mean()}

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": sum(output["loss"] for output in outputs) / len(outputs)}

    def on_fit_end(self) -> None:
        self.sender.look("end", 0)

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(self.parameters(), 0.01)]

    def get_save_dict(self) -> dict[str, Any]:
        self.nb_saves += 1
        self.sender.look("save", self.nb_saves)
        return {"state_dict": self.state_dict()}

    def loader(self, **options: Any) -> Any:
        return DataLoader(
            Drawn(self.sender if options else None),
            batch_size=5,
            num_workers=self.workers,
            multiprocessing_context=self.context if self.workers else None,
            **options,
        )

    @property
    def tng_dataloader(self) -> Any:
        return self.loader(shuffle=True)

    @property
    def val_dataloader(self) -> Any:
        return self.loader()


def main(
    folder: str,
    send: Any = (),
    workers: int = 0,
    context: str | None = None,
    ignores: bool = False,
    code: int = 0,
    **options: Any,
) -> None:
    """Train in ``folder``; leaves ``result.json`` there."""
    torch.set_num_threads(1)
    os.chdir(folder)
    torch.manual_seed(0)
    told: list[int] = []
    if ignores:  # a handler of the program's own
        signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    sender = Sender(*send)
    sender.look("start", 0)
    trainer = Trainer(
        **{
            "seed": 1,
            "max_nb_epochs": 3,
            "progress_bar": False,
            "print_weights_summary": False,
            "save_every_minutes": 0,
            "nb_sanity_val_steps": 1,
            "add_log_row_interval": 1,
            "silence": ("unfinished-run", "first-save"),
            **options,
        }
    )
    sender.look("constructed", 0)
    model = Model(sender, workers, context)
    returned = -1
    with contextlib.suppress(SystemExit) if code else contextlib.nullcontext():
        returned = trainer.fit(model)
    if os.environ.get("RANK", "0") == "0":
        weights = b"".join(value.detach().numpy().tobytes() for value in model.state_dict().values())
        result = {
            "weights": hashlib.sha256(weights).hexdigest(),
            "returned": returned,
            "interrupted": trainer.interrupted,
            "step": trainer.global_step,
            "restored": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
            "told": told,
        }
        Path("result.json").write_text(json.dumps(result))


def outcome(folder: Path) -> tuple[str, list[dict[str, str]]]:
    """The final weights, and the rows without their times."""
    result = json.loads((folder / "result.json").read_text())
    assert result["returned"] == 1, result
    (path,) = (folder / "lightning_logs").glob("*/*/metrics.csv")
    rows = [
        {k: v for k, v in row.items() if k != "created_at"} for row in csv.DictReader(path.read_text().splitlines())
    ]
    return result["weights"], rows


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
