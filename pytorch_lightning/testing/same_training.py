"""``same_training``: a test that training computes what it did."""

import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.errors import MisconfigurationException, describe
from pytorch_lightning.root_module.root_module import LightningModule
from pytorch_lightning.seeding import preserved, seed_everything
from pytorch_lightning.testing.golden import RANDOM, Golden, circumstances, differences, report
from pytorch_lightning.testing.recorder import Reached, Record, Recorder, read_records
from pytorch_lightning.trainer.replaying import twin_of
from pytorch_lightning.trainer.trainer import Trainer

UPDATE = "UPDATE_SAME_TRAINING"
"""The environment variable by which pytest's option reaches the processes that run tests."""

SAID = ("first-save", "no-validation", "never-validated")
QUIET = {
    "progress_bar": False,
    "print_weights_summary": False,
    "nb_sanity_val_steps": 0,
    "crash_bundle": False,
    "silence": SAID,
}
OWN = (
    "experiment",
    "default_save_path",
    "save_every_minutes",
    "save_every_nb_batches",
    "resume",
    "max_nb_epochs",
    "fast_dev_run",
    "compile",
)
"""Options that are set here, and one that leaves nothing to look at."""


def same_training(
    model: LightningModule | Callable[[], LightningModule],
    golden: str | Path = "golden.json",
    nb_batches: int = 50,
    *,
    tolerance: float = 0.0,
    resume_at: int | None = None,
    update: bool | None = None,
    **options: Any,
) -> None:
    """Train ``model`` for ``nb_batches`` training batches and compare every number on the way with the file ``golden``.

    Compared are the indices of each batch, the batch, the output of each submodule, the loss, the gradients as the
    optimizers get them, the weights after each step, the numbers of validations, and buffers at the end. The file holds
    about 40 bytes for each of them. The first one that isn't as it was raises ``AssertionError``, with its batch, its
    name and the size of the difference.

    ``model`` is a LightningModule, of which a copy is trained, or a function that makes one, which is called with all
    random numbers seeded. ``tolerance`` is the greatest difference that is no difference, as a share of a tensor's
    norm; by default each bit counts. With ``resume_at`` training is ended after so many batches and resumed in another
    Trainer, by a model that is made again. ``update=True`` writes the file instead; by default that is so where the
    program's words hold ``--update``. ``options`` are the Trainer's: ``seed`` (default 1), ``nb_processes``,
    ``accumulate_grad_batches``, ... Where one process is compared with several, give both the same ``virtual_ranks``
    and ``exact_elastic=True``. Bits are the same on one kind of platform, with one version of torch and one number of
    threads; what changed of these is said beside a difference.

    Raises ``MisconfigurationException`` for options that can't be compared.

    >>> import tempfile
    >>> import torch
    >>> from pytorch_lightning import LightningModule
    >>> class Model(LightningModule):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = torch.nn.Linear(4, 1)
    ...     def training_step(self, data_batch, batch_nb):
    ...         return self.layer(data_batch).pow(2).mean()
    ...     def configure_optimizers(self):
    ...         return torch.optim.SGD(self.parameters(), lr=0.1)
    ...     @property
    ...     def tng_dataloader(self):
    ...         return [torch.full((2, 4), size) for size in (1.0, 2.0)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     same_training(Model, f"{folder}/golden.json", nb_batches=4, update=True)  # once
    ...     same_training(Model, f"{folder}/golden.json", nb_batches=4)
    """
    _check(nb_batches, tolerance, resume_at, options)
    options, path = {"seed": 1, **options}, Path(golden)
    records, now = _train(model, nb_batches, resume_at, options), circumstances(options)
    nb_trained = len({record.batch for record in records if 0 <= record.batch < nb_batches})
    if nb_trained < nb_batches:
        raise AssertionError(f"training ended after {nb_trained} batches, and {nb_batches} were to be compared.")
    if _updates() if update is None else update:
        Golden(nb_batches, now, records).write(path)
        return
    if not path.exists():
        raise AssertionError(f"{path} doesn't exist. Write it with pytest --update, or update=True.")
    kept = Golden.read(path)
    if nb_batches > kept.nb_batches:
        raise AssertionError(f"{path} holds {kept.nb_batches} batches, and {nb_batches} are to be compared.")
    records = Golden(nb_batches, now, records).until(nb_batches)
    was = kept.until(nb_batches)
    if nb_batches < kept.nb_batches:
        records = [record for record in records if record.batch < nb_batches]
    found = [*differences(was, records, tolerance)]
    if any(each.now.name != RANDOM for each in found):
        raise AssertionError(report(kept, records, path, found, now))


def _check(nb_batches: int, tolerance: float, resume_at: int | None, options: dict[str, Any]) -> None:
    for name in OWN:
        if name in options:
            raise MisconfigurationException(f"same_training sets {name} itself. Leave it out.")
    backend = options.get("distributed_backend")
    if backend not in (None, "ddp"):
        raise MisconfigurationException(
            f"same_training compares whole tensors; received distributed_backend={backend!r}. Leave it out, or pass"
            " 'ddp'."
        )
    if isinstance(nb_batches, bool) or not isinstance(nb_batches, int) or nb_batches < 1:
        raise MisconfigurationException(f"nb_batches must be a whole number of at least 1; received {nb_batches!r}.")
    if not tolerance >= 0:
        raise MisconfigurationException(f"tolerance must be at least 0; received {tolerance!r}.")
    if resume_at is not None and not 0 < resume_at < nb_batches:
        raise MisconfigurationException(
            f"resume_at must lie between 0 and nb_batches={nb_batches}; received {resume_at!r}."
        )


def _train(
    model: LightningModule | Callable[[], LightningModule],
    nb_batches: int,
    resume_at: int | None,
    options: dict[str, Any],
) -> list[Record]:
    """The records of a training, or of two that make one."""
    with tempfile.TemporaryDirectory(prefix="same_training_") as scratch:
        for until in [nb_batches] if resume_at is None else [resume_at, nb_batches]:
            resumed = resume_at is not None and until == nb_batches
            recorder = Recorder(scratch, until, resumed=resumed, continued=until != nb_batches)
            given = {**QUIET, **options, "callbacks": [*options.get("callbacks", ()), recorder]}
            if resume_at is None:
                given |= {"experiment": False, "save_every_minutes": 0}
            else:
                given["save_every_nb_batches"] = resume_at
            trainer = Trainer(
                checkpoint_callback=False,
                default_save_path=Path(scratch, "run"),
                resume="auto",
                max_nb_epochs=10**6,
                **given,
            )
            with preserved(), suppress(Reached):
                trainer.fit(_made(model, options["seed"]))
        records, resumed_at = read_records(scratch)
        if resume_at is not None and not 0 < resumed_at <= resume_at:
            raise AssertionError(f"there was no save to resume from before batch {resume_at}. Choose a later one.")
        return records


def _made(model: Any, seed: int) -> LightningModule:
    if isinstance(model, LightningModule):
        (twin,) = twin_of(model)
        return twin  # type: ignore[no-any-return]
    if not callable(model):
        raise MisconfigurationException(f"same_training needs a model, or a function that makes one: {describe(model)}")
    seed_everything(seed)
    made: LightningModule = model()
    return made


def _updates() -> bool:
    return "--update" in sys.argv or bool(os.environ.get(UPDATE))


def pytest_addoption(parser: Any) -> None:
    """Give ``parser``, pytest's, the option ``--update``, which makes ``same_training`` write its files.

    >>> from pytorch_lightning.testing import pytest_addoption, pytest_configure  # a line of conftest.py
    """
    parser.addoption("--update", action="store_true", help="write the files of same_training anew")


def pytest_configure(config: Any) -> None:
    """Pass ``--update`` of ``config``, pytest's, on to the processes of pytest-xdist.

    >>> from pytorch_lightning.testing import pytest_addoption, pytest_configure  # a line of conftest.py
    """
    if config.getoption("--update", False):
        os.environ[UPDATE] = "1"
