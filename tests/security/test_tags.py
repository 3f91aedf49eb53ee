"""A tags file, and hyperparameters from any file, are values: they are never evaluated, and never large."""

import time
import tracemalloc
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytorch_lightning import LightningModule
from pytorch_lightning.errors import CheckpointError
from pytorch_lightning.replay import build_module


class Loaded(LightningModule):
    def __init__(self, hparams: Any = None) -> None:
        super().__init__(hparams)
        self.layer = nn.Linear(1, 1)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save({"state_dict": Loaded().state_dict()}, tmp_path / "x.ckpt")
    return tmp_path / "x.ckpt"


def load(weights: Path, tags: bytes) -> Namespace:
    """The hyperparameters that a model gets which is loaded with ``tags``."""
    path = weights.with_name("meta_tags.csv")
    path.write_bytes(tags)
    return Loaded.load_from_metrics(weights, path, on_gpu=False).hparams


CODE = [
    "__import__('os').system('touch ran')", "open('ran', 'w')", "{'a': print(1)}", "[1, 2]", "!!python/object/apply:os",
    "=HYPERLINK(1)", "${HOME}", "%(home)s", "lambda: 1", "b'x'", "1_000", "0x10", "1" * 5_000, "cos_1e5", "\x1b[2J",
]  # fmt: skip


def test_what_looks_like_code_stays_text(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in CODE:
        quoted = text.replace('"', '""')
        assert load(weights, f'key,value\nname,"{quoted}"\n'.encode()).name == text
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        (b"key,value\n__class__,1\n", "has the hyperparameter '__class__', which a Namespace can't have"),
        (b"key,value\n__dict__,1\n", "'__dict__'"),
        (b"key,value\n_get_kwargs,1\n", "'_get_kwargs'"),
        (b"key,value\na,1,2\n", "row 1 are"),
        (b"key,value\na,1\nb,1,2\n", "row 2 are"),
        (b"name,value\na,1\n", "not key and value"),
        (b"key,value\na,\xff\xfe\n", "codec can't decode"),
        (b"key,value\na," + b"x" * 200_000 + b"\n", "field larger than field limit"),
        (b"key,value\n" + b"".join(b"%d,\n" % n for n in range(10_001)), "more than 10,000 rows"),
        (b"key,value\n" + b"a,\n" * 4_000_000, "12,000,010 bytes"),
        (b"", None),
    ],
    ids=lambda value: value[:40].decode(errors="replace") if isinstance(value, bytes) else "",
)
def test_a_hostile_tags_file_is_refused_in_one_line(weights: Path, tags: bytes, why: str | None) -> None:
    tracemalloc.start()
    began = time.monotonic()
    if why is None:
        assert load(weights, tags) == Namespace(on_gpu=False)
    else:
        with pytest.raises(CheckpointError) as caught:
            load(weights, tags)
        assert why in str(caught.value)
        assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 2
    assert tracemalloc.get_traced_memory()[1] < 60_000_000
    tracemalloc.stop()


def test_something_else_than_a_file_is_not_opened(weights: Path, tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(CheckpointError, match="not a file"):
            Loaded.load_from_metrics(weights, path, on_gpu=False)


@pytest.mark.parametrize("key", ["__class__", "__dict__", "_get_kwargs", "__setattr__", 3, None])
def test_hyperparameters_of_a_checkpoint_or_a_bundle_replace_nothing(key: Any, weights: Path) -> None:
    torch.save({"state_dict": Loaded().state_dict(), "hparams": {key: {"a": 1}}}, weights)
    with pytest.raises(CheckpointError, match="which a Namespace can't have"):
        Loaded.load_from_checkpoint(weights)
    with pytest.raises(CheckpointError, match="the bundle has the hyperparameter"):
        build_module({"hparams": {key: 1}, "hparams_is_dict": False}, Loaded)
