"""Examples that are killed and started again end with the same weights, metrics and words; and they learn."""

import csv
import importlib.util
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import pytorch_lightning
from tests.equality.test_resume import comparable, differences
from tests.faults import warm
from tests.faults.killing import run_example

EXAMPLES = Path(pytorch_lightning.__file__).parent.parent / "examples"
QUIET = ("--progress_bar", "False", "--print_weights_summary", "False")
SHORT = ("--max_nb_epochs", "2", "--save_every_nb_batches", "1")


def neighbour(name: str, *values: Any) -> Any:
    """A case that needs the package ``name``."""
    marks = [pytest.mark.neighbours]
    if importlib.util.find_spec(name) is None:
        marks.append(pytest.mark.skip(f'{name} isn\'t installed: pip install -e ".[neighbours]"'))
    return pytest.param(*values, marks=marks)


def start(folder: Path, name: str, *options: str, fault: str = "") -> warm.Ended:
    folder.mkdir(exist_ok=True)
    given = (str(EXAMPLES / f"{name}.py"), str(folder), *QUIET, *options)
    ended = warm.run(run_example, *given, output=folder / "said", fault=fault)
    assert ended.code in (0, -signal.SIGKILL), ended.said
    return ended


def words(said: str) -> list[str]:
    """What the program printed at its end."""
    return [line for line in said.splitlines() if re.match(r"(accuracy|steps|perplexity|\d) ", line)]


def kept(folder: Path) -> tuple[list[Any], list[Any]]:
    """The newest save and the rows of each run that came to one, in the order of their folders."""
    saves, rows = [], []
    for path in sorted(folder.rglob("metrics.csv")):
        found = sorted((path.parent / "checkpoints").glob("step-*.ckpt"))
        if not found:
            continue
        save = comparable(torch.load(found[-1], weights_only=True))
        save["parts"]["run"].pop("id")  # drawn for each run
        save["parts"].pop("attributes")  # those that were changed once are in it, even if they are as at first again
        saves.append(save)
        with path.open(newline="") as file:
            rows.append([{k: v for k, v in row.items() if k != "created_at"} for row in csv.DictReader(file)])
    return saves, rows


FEW = ("--nb_digits", "192", "--batch_size", "16")
LORA_FAULTS = ("batch.run:16", "update.end:30", "validation.run:1")
"""In the first network; in the adapters, wherever the first one went on; in the adapters again."""
KILLED = [
    ("lora", FEW, LORA_FAULTS),
    neighbour("schedulefree", "lora", (*FEW, "--schedule_free"), LORA_FAULTS),
    neighbour(
        "torchmetrics", "confusion", ("--batch_size", "512"), ("batch.run:4", "update.end:8", "validation.run:1")
    ),
    ("sentences", ("--batch_size", "100"), ("batch.run:4", "update.end:3", "batch.run:6", "validation.run:1")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "faults"), KILLED)
def test_a_killed_example_ends_alike(tmp_path: Path, name: str, options: Any, faults: Any) -> None:
    options = (*options, *SHORT, *(() if name == "lora" else ("--default_save_path", "logs", "--resume", "auto")))
    whole = start(tmp_path / "whole", name, *options)
    assert whole.code == 0, whole.said
    for fault in faults:
        assert start(tmp_path / "cut", name, *options, fault=fault).code == -signal.SIGKILL, fault
    cut = start(tmp_path / "cut", name, *options)
    assert cut.code == 0, cut.said
    assert words(cut.said) == words(whole.said) != []
    (saves, rows), (saves_of_cut, rows_of_cut) = kept(tmp_path / "whole"), kept(tmp_path / "cut")
    assert differences(saves, saves_of_cut) == []
    assert rows == rows_of_cut
    assert len(saves) == (2 if name == "lora" else 1)
    if name == "lora":
        assert "state_dict" not in saves[0]
        assert {key.split(".")[-1] for key in saves[0]["adapters"]} == {"lora_a", "lora_b"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pattern", "least", "most"),
    [
        ("lora", r"and ([\d.]+) with adapters", 0.6, 1.0),
        neighbour("torchmetrics", "confusion", r"([\d.]+) in validation", 0.85, 1.0),
        ("sentences", r"perplexity +([\d.]+)", 1.0, 2.2),
    ],
)
def test_an_example_learns(tmp_path: Path, name: str, pattern: str, least: float, most: float) -> None:
    done = start(tmp_path, name, *(() if name == "lora" else ("--default_save_path", "logs")))
    assert done.code == 0, done.said
    (figure,) = re.findall(pattern, done.said)
    assert least <= float(figure) <= most
