"""What a hostile file is meant for: one small program, the files that it wrote, and each way in which one is read."""

import contextlib
import io
import json
import pickle
import random
import shutil
import traceback
import zlib
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.checkpoints.__main__ import main as consolidate
from pytorch_lightning.checkpoints.run_store import RunStore
from pytorch_lightning.checkpoints.snapshot import state_checksums
from pytorch_lightning.errors import LightningError
from pytorch_lightning.processes import ALONE
from pytorch_lightning.replay import main as replay
from tests.checkpoints.saving import sharded
from tests.security import hostile, mutations
from tests.security.hostile import Payload

QUIET: dict[str, Any] = {
    "progress_bar": False,
    "print_weights_summary": False,
    "nb_sanity_val_steps": 0,
    "silence": ("not-shuffled", "no-validation", "first-save"),
    "max_nb_epochs": 3,
    "seed": 1,
}
HPARAMS = {"width": 3, "name": "net"}


class Cut(Exception):
    """Ends a fit as a kill would."""


class SaveTwice(Callback):
    """Saves in the second epoch, then ends the fit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_batch_end(self, run: Any) -> None:
        step = run.progress.global_step
        if step in (4, 6):
            run.save(self.folder / f"{step}.ckpt")
        if step == 7:
            raise Cut


class Victim(LightningModule):
    """Layers, buffers, an optimizer and a schedule with state, and attributes that each step changes."""

    def __init__(self, hparams: Any) -> None:
        super().__init__(hparams)
        self.layers = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 1))
        self.generator = torch.Generator()
        self.count, self.history, self.mean = 0, [0], torch.zeros(2)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.count += 1
        self.history.append(self.count)
        self.mean = self.mean * 0.9 + data_batch[0].mean(0).detach()
        return {"loss": self.layers(data_batch[0]).pow(2).mean(), "prog": {"count": self.count}}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"val_loss": self.layers(data_batch[0]).pow(2).mean()}

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack([output["val_loss"] for output in outputs]).mean()}

    test_step, test_end = validation_step, validation_end

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.arange(16.0).view(8, 2)), batch_size=2, shuffle=True)

    @property
    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.ones(4, 2)), batch_size=2)

    test_dataloader = val_dataloader


class Failing(Victim):
    """Raises in its fourth batch, which leaves a bundle."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.global_step == 3:
            raise ValueError("the fourth")
        return super().training_step(data_batch, batch_nb)


def fit(model: Victim, folder: Path, callbacks: Any = (), **options: Any) -> Trainer:
    trainer = Trainer(
        **{**QUIET, "default_save_path": folder / "logs", **options},
        callbacks=callbacks,
        early_stop_callback=EarlyStopping(patience=9),
        checkpoint_callback=ModelCheckpoint(folder / "kept"),
    )
    trainer.fit(model)
    return trainer


def write_all(folder: Path) -> None:
    """Each kind of file, in a folder of its own."""
    with contextlib.suppress(Cut):
        fit(Victim(Namespace(**HPARAMS)), folder / "run", [SaveTwice(folder)])
    with contextlib.suppress(ValueError):
        fit(Failing(Namespace(**HPARAMS)), folder / "bundle")
    logs = "logs/Victim/version_0/checkpoints"
    for step in (4, 6):
        data = torch.load(folder / f"{step}.ckpt", weights_only=True)
        (folder / f"{step}.ckpt").unlink()
        for store in (RunStore(folder / "run" / logs), RunStore(f"file://{folder}/remote/{logs}")):
            with store:
                data["parts"]["checksums"] = state_checksums(data["state_dict"])
                store.write(data, step)
    from pytorch_lightning.checkpoints.sharded import write_sharded

    write_sharded(sharded(data), folder / "sharded" / "step-000000000006.ckpt", ALONE)


# ------------------------------------------------------------------------------------------ ways in
def load(path: Path) -> Any:
    model = Victim.load_from_checkpoint(path)
    return model.state_dict()


def check(path: Path) -> Any:
    Trainer(False, **QUIET).test(Victim(Namespace(**HPARAMS)), ckpt=path)


def resume(path: Path) -> Any:
    fit(Victim(Namespace(**HPARAMS)), path.parent / "resumed", resume=path, max_nb_epochs=2)


def resume_auto(path: Path) -> Any:
    folder = next(p for p in path.parents if p.name in ("run", "remote"))
    logs: Any = f"file://{folder}/logs" if folder.name == "remote" else folder / "logs"
    fit(Victim(Namespace(**HPARAMS)), folder, default_save_path=logs, resume="auto", max_nb_epochs=2)


def start_beside(path: Path) -> Any:
    """A new run, which looks whether there is an unfinished one."""
    folder = next(p for p in path.parents if p.name in ("run", "remote"))
    logs: Any = f"file://{folder}/logs" if folder.name == "remote" else folder / "logs"
    fit(Victim(Namespace(**HPARAMS)), folder, default_save_path=logs, max_nb_epochs=1)


def resume_folder(path: Path) -> Any:
    resume(folder_of(path))


def load_folder(path: Path) -> Any:
    return load(folder_of(path))


def consolidate_folder(path: Path) -> Any:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = consolidate(["consolidate", str(folder_of(path)), "--output", str(path.parent.parent / "whole.ckpt")])
    if status:
        raise LightningError(said.getvalue().removesuffix("\n"))


def replay_bundle(path: Path) -> Any:
    said = io.StringIO()
    script = path.with_name("script.py")
    script.write_text("from tests.security.victims import Failing as Base\nclass Failing(Base): pass\n")
    with contextlib.redirect_stderr(said):
        status = replay([str(path), "--script", str(script)])
    if status:
        raise LightningError(said.getvalue().removesuffix("\n"))


def load_tags(path: Path) -> Any:
    weights = path.with_name("weights.ckpt")
    torch.save({"state_dict": Victim(Namespace(**HPARAMS)).state_dict()}, weights)
    Victim.load_from_metrics(weights, path, on_gpu=False)


def folder_of(path: Path) -> Path:
    return next(p for p in path.parents if p.name.endswith(".ckpt"))


def note_anew(folder: Path) -> None:
    """Make the manifest of a sharded checkpoint say what is in its folder now."""
    try:
        manifest = torch.load(folder / "manifest.ckpt", weights_only=True)
        for note in manifest["sharded"]["files"]:
            content = (folder / note["name"]).read_bytes()
            note.update(size=len(content), crc=zlib.crc32(content))
        torch.save(manifest, folder / "manifest.ckpt")
    except Exception:
        return  # it is what was mutated


Mutate = Callable[[random.Random, Path, str, Path], None]


@dataclass(frozen=True)
class Target:
    """A kind of file: which one, how it is changed, and who reads it."""

    pattern: str
    mutate: Mutate
    readers: tuple[Callable[[Path], Any], ...]

    def path(self, folder: Path) -> Path:
        return max(folder.glob(self.pattern))


def remote_data(r: random.Random, path: Path, kind: str, mark: Path) -> None:
    """The data of a remote save, and their size in its manifest."""
    mutations.mutate_checkpoint(r, path, kind, mark)
    manifest = path.with_name(path.name.split(".ckpt.")[0] + ".ckpt.json")
    said = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**said, "size": path.stat().st_size}))


def in_folder(mutate: Mutate) -> Mutate:
    """A file of a sharded checkpoint; mostly the manifest knows of the change."""

    def change(r: random.Random, path: Path, kind: str, mark: Path) -> None:
        mutate(r, path, kind, mark)
        if path.name != "manifest.ckpt" and r.random() < 0.9:
            note_anew(path.parent)

    return change


def one_shard(r: random.Random, path: Path, kind: str, mark: Path) -> None:
    """A shard, which is a file in the file, and its length in the index."""
    index, content = path.with_name("shards.json"), path.read_bytes()
    said = json.loads(index.read_text())
    shard = r.choice([entry["shards"][0] for entry in said["tensors"].values()])
    start, end = shard["start"], shard["start"] + shard["length"]
    alone = path.with_name("alone")
    alone.write_bytes(content[start:end])
    mutations.mutate_checkpoint(r, alone, kind, mark)
    shard.update(start=len(content), length=alone.stat().st_size)
    path.write_bytes(content + alone.read_bytes())
    alone.unlink()
    index.write_text(json.dumps(said))


def metadata_alone(r: random.Random, path: Path, kind: str, mark: Path) -> None:
    """What torch wrote, in a folder as they were before there was an index."""
    (path.parent / "shards.json").unlink()
    manifest = torch.load(path.parent / "manifest.ckpt", weights_only=True)
    notes = manifest["sharded"]["files"]
    notes[:] = [note for note in notes if note["name"] != "shards.json"]
    torch.save(manifest, path.parent / "manifest.ckpt")
    pickled = pickle.dumps(Payload(mark, r.choice(Payload.WAYS)), r.randrange(pickle.HIGHEST_PROTOCOL + 1))
    change = mutations.BYTES.get(kind, mutations.sizes)
    path.write_bytes(pickled if kind == "code" else change(r, path.read_bytes()))


SHARDS = (load_folder, resume_folder, consolidate_folder)
TARGETS: dict[str, Target] = {
    "kept": Target("run/kept/*.ckpt", mutations.mutate_checkpoint, (load, resume, check)),
    "rolling": Target("run/logs/**/step-*.ckpt", mutations.mutate_checkpoint, (resume_auto, start_beside)),
    "named": Target("run/logs/**/step-*.ckpt", mutations.mutate_checkpoint, (resume,)),
    "bundle": Target("bundle/logs/**/bundle.pt", mutations.mutate_checkpoint, (replay_bundle,)),
    "shards: manifest": Target("sharded/*/manifest.ckpt", in_folder(mutations.mutate_checkpoint), SHARDS),
    "shards: a shard": Target("sharded/*/*.distcp", in_folder(one_shard), SHARDS),
    "shards: index": Target("sharded/*/shards.json", in_folder(mutations.mutate_json), SHARDS),
    "shards: metadata": Target("sharded/*/.metadata", in_folder(metadata_alone), SHARDS),
    "remote: manifest": Target("remote/logs/**/step-*.json", mutations.mutate_json, (resume_auto, start_beside)),
    "remote: data": Target("remote/logs/**/step-*.data", remote_data, (resume_auto,)),
    "tags": Target("run/logs/**/meta_tags.csv", mutations.mutate_table, (load_tags,)),
}


# ------------------------------------------------------------------------------------------ one trial
@dataclass
class Outcome:
    """What became of a mutated file."""

    error: BaseException | None
    seconds: float
    peak: int
    size: int
    ran: bool

    @property
    def is_ours(self) -> bool:
        return self.error is None or isinstance(self.error, LightningError)

    @property
    def is_the_users(self) -> bool:
        """Whether it was raised by the program's own code, from values that it was given."""
        if self.error is None:
            return False
        frames = traceback.extract_tb(self.error.__traceback__)
        own = ("__init__", "training_step", "validation_step", "validation_end", "configure_optimizers")
        return any(f.filename in (__file__, "<script>") and f.name in own for f in frames)


def attempt(target: Target, seed: str, files: Path, work: Path) -> tuple[str, Outcome]:
    """Mutate a copy of what is in ``files`` and have it read; what was done, and what became of it."""
    r = random.Random(seed)
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(files, work / "files")
    path, mark = target.path(work / "files"), work / "ran"
    kind, reader = r.choice(mutations.KINDS), r.choice(target.readers)
    target.mutate(r, path, kind, mark)
    size = hostile.size_of(path.parent)
    error: BaseException | None = None
    with hostile.measured() as took:
        try:
            reader(path)
        except (Exception, SystemExit) as caught:
            error = caught
    return f"{kind}, {reader.__name__}", Outcome(error, took.seconds, took.peak, size, mark.exists())
