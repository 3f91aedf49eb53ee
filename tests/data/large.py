"""A program that trains on any number of samples, for measurements and kills:

python -m tests.data.large SAMPLES FOLDER [OPTION=JSON ...]

Prints the processor time between the imports and the fifth step of this start, the most memory in MB, and a CRC of the
weights. The options ``kill`` (steps after which it dies) and ``shuffle`` are its own.
"""

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

BATCH = 64
IMPORTED = time.process_time()
STEPS: list[int] = []
"""Of this start: an attribute would be in the checkpoint."""


class Numbers(Dataset[Any]):
    """``nb`` samples, each a function of its index."""

    def __init__(self, nb: int) -> None:
        self.nb = nb

    def __len__(self) -> int:
        return self.nb

    def __getitem__(self, index: int) -> Any:
        return torch.tensor([index % 97 / 97.0, index % 89 / 89.0])


class Line(LightningModule):
    def __init__(self, loader: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, 1)
        self.loader = loader

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if "FIFTH_STEP" in os.environ:
            STEPS.append(self.global_step)
            if len(STEPS) == 5:  # in whichever process
                Path(os.environ["FIFTH_STEP"]).write_text(str(time.process_time() - IMPORTED))
        (x,) = data_batch if isinstance(data_batch, list) else (data_batch,)
        return {"loss": (self.layer(x) - x.sum(1, keepdim=True)).pow(2).mean()}

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)]

    @property
    def tng_dataloader(self) -> Any:
        return self.loader


class KillAfter(Callback):
    def __init__(self, nb_steps: int) -> None:
        self.nb_steps = nb_steps

    def on_batch_end(self, run: Any) -> None:
        if run.progress.global_step == self.nb_steps:
            os.kill(os.getpid(), signal.SIGKILL)


def main(nb: str, folder: str, *words: str) -> None:
    options: dict[str, Any] = {"seed": 1, "max_nb_epochs": 1, "max_nb_steps": 8, "progress_bar": False}
    options |= {name: json.loads(value) for name, _, value in (word.partition("=") for word in words)}
    kill, shuffle = options.pop("kill", None), options.pop("shuffle", True)
    model = Line(DataLoader(Numbers(int(nb)), BATCH, shuffle=shuffle))
    callbacks = [] if kill is None else [KillAfter(kill)]
    silence = ("not-shuffled", "no-validation")
    trainer = Trainer(default_save_path=folder, callbacks=callbacks, silence=silence, nb_sanity_val_steps=0, **options)
    fifth = Path(folder, "fifth")
    fifth.unlink(missing_ok=True)
    os.environ["FIFTH_STEP"] = str(fifth)
    trainer.fit(model)
    of_each = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    trainer.save_checkpoint(Path(folder) / "end.ckpt")
    weights = crc32(model.layer.weight.detach().numpy().tobytes())
    seconds = float(fifth.read_text())
    print(json.dumps({"seconds": seconds, "memory": max(of_each) / 1024, "weights": weights}), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
