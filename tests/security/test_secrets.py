"""What is in the environment, and what the user didn't ask to keep, is in no file that a run writes."""

import io
import os
import secrets
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

PROGRAM = """
import os
import sys

import torch
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger


class Model(LightningModule):
    def __init__(self, hparams):
        super().__init__(hparams)
        self.layer = torch.nn.Linear(4, 1)
        self.token = os.environ["API_TOKEN"]  # an attribute that no file may hold

    def forward(self, x):
        return self.layer(x[0])

    def training_step(self, data_batch, batch_nb):
        if self.hparams["fails"] and self.global_step == 7:
            raise ValueError("as planned")
        return {"loss": self(data_batch).pow(2).mean()}

    def validation_step(self, data_batch, batch_nb):
        return self(data_batch).pow(2).mean()

    def validation_end(self, outputs):
        return {"val_loss": torch.stack(outputs).mean()}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)

    tng_dataloader = property(lambda self: DataLoader(TensorDataset(torch.ones(40, 4)), batch_size=4, shuffle=True))
    val_dataloader = test_dataloader = property(lambda self: DataLoader(TensorDataset(torch.ones(8, 4)), batch_size=4))


if __name__ == "__main__":
    kinds = {
        "plain": {"checkpoint_callback": ModelCheckpoint("plain/kept"), "profile": True, "resume": "auto"},
        "tensorboard": {"experiment": TensorBoardLogger("tensorboard")},
        "several": {"nb_processes": 2, "distributed_backend": "fsdp", "resume": "auto"},
        "failing": {},
    }
    for name, options in kinds.items():
        model = Model({"lr": 0.1, "fails": name == "failing"})
        trainer = Trainer(max_nb_epochs=2, save_every_nb_batches=3, default_save_path=name, **options)
        try:
            trainer.fit(model)
        except ValueError:
            assert name == "failing"
    trainer.predict(model, model.test_dataloader, write_to="predictions")
"""


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Each file below ``folder``, and each entry of those that are archives, unpacked."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            yield str(path.relative_to(folder)), data
            if zipfile.is_zipfile(io.BytesIO(data)):
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    for name in archive.namelist():
                        yield f"{path.relative_to(folder)}:{name}", archive.read(name)
            elif data[:2] == b"\x1f\x8b":
                yield f"{path.relative_to(folder)}:", zlib.decompress(data, wbits=31)


def test_no_file_holds_what_is_in_the_environment(tmp_path: Path) -> None:
    """Logs, tags, checkpoints, shards, a crash bundle, a trace, predictions, and what is left in temporary folders."""
    token = secrets.token_hex(16)
    script, temporary = tmp_path / "train.py", tmp_path / "temporary"
    script.write_text(PROGRAM)
    temporary.mkdir()
    environment = {**os.environ, "API_TOKEN": token, "PATH_TO_DATA": f"/data/{token}", "TMPDIR": str(temporary)}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = dict(contents(tmp_path))
    kinds = ("metrics.csv", "meta_tags.csv", "tfevents", "_ckpt_epoch_2.ckpt", "step-", "bundle.pt", "trace", "predict")
    assert [kind for kind in kinds if not any(kind in name for name in found)] == []
    holders = [name for name, data in found.items() if token.encode() in data or b"API_TOKEN" in data]
    assert holders == ["train.py"]
    assert token not in done.stdout + done.stderr
    assert not list(temporary.iterdir())  # where the processes of a machine met, and the job lay that they do
