"""Which samples a batch of a run had is told from a save, and so is the loss of each."""

import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.samples import main

QUIET: dict[str, Any] = {
    "progress_bar": False,
    "print_weights_summary": False,
    "silence": ("no-validation", "not-shuffled"),
    "save_every_nb_batches": 4,
    "max_nb_epochs": 3,
    "seed": 5,
}
SEEN: dict[int, list[list[int]]] = defaultdict(list)
"""What each training step was given, by global_step: one list for each virtual rank."""
STREAMS: dict[int, list[Tensor]] = defaultdict(list)
"""The state of torch's stream in each of these steps."""
BATCHES: dict[int, list[Tensor]] = defaultdict(list)


class Noting(Dataset[Any]):
    """A sample is its index, and a number with noise."""

    def __init__(self, nb: int = 43) -> None:
        self.nb = nb

    def __len__(self) -> int:
        return self.nb

    def __getitem__(self, index: int) -> Any:
        return index, torch.tensor([index / self.nb, 1.0]) + 0.01 * torch.rand(2)


class Counting(Noting):
    """An attribute changes while training."""

    nb_asked = 0

    def __getitem__(self, index: int) -> Any:
        self.nb_asked += 1
        return super().__getitem__(index)


class EachEpoch(torch.utils.data.Sampler[int]):
    """One's own, that is told the epoch."""

    def __init__(self, nb: int) -> None:
        self.nb, self.epoch = nb, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.nb - 5 * self.epoch

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.nb, generator=torch.Generator().manual_seed(self.epoch)).tolist()[: len(self)])


class Growing(EachEpoch):
    """Its order depends on what it went through."""

    def __iter__(self) -> Iterator[int]:
        self.turns = getattr(self, "turns", 0) + 1
        return iter([(n * 7 + self.turns) % self.nb for n in range(len(self))])


class Stateful(EachEpoch):
    def state_dict(self) -> dict[str, int]:
        return {"seed": self.epoch + 100}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter((n, torch.ones(2)) for n in range(40))


class Twice(list[int]):
    """Batches of one's own, in an order that is drawn."""

    def __iter__(self) -> Iterator[Any]:
        yield from ([n, (n * 2) % 43, random.randrange(43)] for n in torch.randperm(12).tolist())

    def __len__(self) -> int:
        return 12


KINDS: dict[str, Callable[[], Any]] = {
    "shuffled": lambda: DataLoader(Counting(), batch_size=4, shuffle=True),
    "larger": lambda: DataLoader(Noting(50), batch_size=4, shuffle=True),
    "other order": lambda: DataLoader(Noting(), batch_size=4),
    "drop_last": lambda: DataLoader(Noting(), batch_size=4, shuffle=True, drop_last=True),
    "weighted": lambda: DataLoader(Noting(), batch_size=4, sampler=WeightedRandomSampler([1.0, 3.0] * 21, 30)),
    "generator": lambda: DataLoader(Noting(), batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(8)),
    "own": lambda: DataLoader(Noting(), batch_size=4, sampler=EachEpoch(43)),
    "batches": lambda: DataLoader(Noting(), batch_sampler=Twice()),
    "counting": lambda: DataLoader(Counting(), batch_size=4, sampler=EachEpoch(43)),
    "growing": lambda: DataLoader(Noting(), batch_size=4, sampler=Growing(43)),
    "stateful": lambda: DataLoader(Noting(), batch_size=4, sampler=Stateful(43)),
    "stream": lambda: DataLoader(Stream(), batch_size=4),
    "list": lambda: [(torch.tensor([n]), torch.ones(1, 2)) for n in range(10)],
}


class Model(LightningModule):
    kinds: dict[str, str] = {}

    def __init__(self, kind: str, fails_at: int = -1) -> None:
        super().__init__()
        self.kind, self.fails_at = kind, fails_at
        self.layer = nn.Sequential(nn.Linear(2, 6), nn.Dropout(0.5), nn.Linear(6, 1))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        indices, x = data_batch
        if self.trainer._plan.config.save_every_nb_batches is not None:  # the run itself, not a copy of it
            SEEN[self.global_step].append(indices.tolist())
            STREAMS[self.global_step].append(torch.get_rng_state())
            BATCHES[self.global_step].append(x)
            if self.global_step == self.fails_at:
                raise ValueError("the end")
        return {"loss": (self.layer(x) - x[:, :1]).pow(2).mean()}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.5)

    @property
    def tng_dataloader(self) -> Any:
        return KINDS[self.kinds.get(self.kind, self.kind)]()


@pytest.fixture(autouse=True)
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for noted in (SEEN, STREAMS, BATCHES):
        noted.clear()
    monkeypatch.setattr(Model, "kinds", {})


def trained(folder: Path, kind: str, fails_at: int = -1, **options: Any) -> str:
    """The folder of a run."""
    Trainer(**{**QUIET, "default_save_path": folder, **options}).fit(Model(kind, fails_at))
    return str(folder / "Model" / "version_0")


def printed(capsys: pytest.CaptureFixture[str], *words: Any) -> list[str]:
    """The lines that the command prints after the first, which is the place."""
    capsys.readouterr()
    status = main([*map(str, words), "--module", __name__, "--model", "Model"])
    out, err = capsys.readouterr()
    assert status == 0, err
    return out.splitlines()[1:]


def refusal(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    capsys.readouterr()
    assert main([*map(str, words), "--module", __name__, "--model", "Model"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()[-1]


RUNS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("shuffled", {}),
    ("shuffled", {"train_percent_check": 0.6, "accumulate_grad_batches": 3, "save_every_nb_batches": 3}),
    ("shuffled", {"max_nb_steps": 17}),
    ("shuffled", {"virtual_ranks": 2, "accumulate_grad_batches": 2}),
    ("shuffled", {"overfit_pct": 0.5}),
    ("drop_last", {"max_nb_tng_batches": 7}),
    ("weighted", {"max_nb_steps": 21}),
    ("generator", {}),
    ("own", {}),
    ("own", {"virtual_ranks": 2, "max_nb_steps": 8}),
    ("batches", {"max_nb_steps": 26}),
)


@pytest.mark.parametrize(("kind", "options"), RUNS, ids=lambda value: value if isinstance(value, str) else "")
def test_the_samples_of_any_batch_are_those_that_it_was_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, options: dict[str, Any]
) -> None:
    run, ranks = trained(tmp_path, kind, **options), options.get("virtual_ranks", 1)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    chosen = {0, max(SEEN), *random.Random(kind).sample(sorted(SEEN), 4)}
    for step in sorted(chosen):
        lines = printed(capsys, run, step)
        found = [line.removeprefix(f"virtual rank {n}: ") for n, line in enumerate(lines)]
        assert len(found) == ranks
        assert [list(map(int, line.split())) for line in found if line != "no batch"] == SEEN[step]
    assert f"there is no batch {10**6}" in refusal(capsys, run, 10**6)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


def test_a_resumed_run_is_one_run_and_a_save_of_it_tells_what_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path, "shuffled", resume="auto", max_nb_steps=15)
    (save,) = Path(run, "checkpoints").glob("*.ckpt")
    ahead = printed(capsys, save, 30)
    assert 30 not in SEEN
    trained(tmp_path, "shuffled", resume="auto")
    assert ahead == printed(capsys, run, 30) == [" ".join(map(str, SEEN[30][0]))]
    for step in (3, 14, 15, 20):
        assert printed(capsys, run, step) == [" ".join(map(str, SEEN[step][0]))]


def test_the_order_of_the_epoch_of_the_save_is_known_also_where_another_one_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind, why in (
        ("growing", "sampler.turns changed while training, and the save has what it was in epoch 1"),
        ("counting", "training dataset.nb_asked changed while training"),
        ("stateful", "has a state of its own, and the save has that of epoch 1"),
    ):
        SEEN.clear()
        run = trained(tmp_path / kind, kind, max_nb_steps=17)
        assert printed(capsys, run, 14) == [" ".join(map(str, SEEN[14][0]))]
        assert why in refusal(capsys, run, 3)


@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        ("stream", {}, "gives no indices: it is a stream, or a list of ready batches"),
        ("list", {}, "gives no indices: it is a stream, or a list of ready batches"),
        ("shuffled", {"reload_dataloaders_every_nb_epochs": 1}, "the loaders are read again"),
    ],
)
def test_what_has_no_order_that_can_be_drawn_again_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, options: dict[str, Any], why: str
) -> None:
    assert why in refusal(capsys, trained(tmp_path, kind, max_nb_tng_batches=6, **options), 3)


@pytest.mark.parametrize(("other", "most"), [("other order", 17), ("larger", 17), ("other order", None)])
def test_another_dataset_than_that_of_the_run_is_found_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, other: str, most: int | None
) -> None:
    run = trained(tmp_path, "shuffled", max_nb_steps=most)
    monkeypatch.setattr(Model, "kinds", {"shuffled": other})
    why = "the training data changed since" if other == "larger" else "another checksum than the save"
    assert why in refusal(capsys, run, 3)


class Leaving(Model):
    """Ends its second epoch early."""

    def on_batch_start(self, data_batch: Any) -> Any:
        return -1 if self.trainer._run.progress.epoch == 1 and self.trainer._run.progress.batch_nb == 4 else None


def test_an_epoch_that_a_hook_ended_early_is_found_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Trainer(**QUIET, default_save_path=tmp_path).fit(Leaving("shuffled"))
    assert max(SEEN) < 30
    assert main([str(tmp_path / "Leaving/version_0"), "3", "--module", __name__, "--model", "Leaving"]) == 1
    assert "An epoch was ended early" in capsys.readouterr().err


def test_a_run_without_saves_and_without_options_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, "shuffled")
    Path(run, "options.yaml").rename(Path(run, "elsewhere"))
    assert "has an options.yaml" in refusal(capsys, run, 3)
    Path(run, "elsewhere").rename(Path(run, "options.yaml"))
    for save in Path(run, "checkpoints").glob("*.ckpt"):
        save.unlink()
    assert "holds no rolling save" in refusal(capsys, run, 3)


# --------------------------------------------------------------------------------------------------- losses
def by_hand(model: Model, upto: int, accumulate: int) -> list[float]:
    """The losses of the samples of batch ``upto``: a plain loop from the first weights over the batches of the run."""
    optimizer = model.configure_optimizers()

    def loss_of(x: Tensor, step: int, rank: int) -> Tensor:
        torch.set_rng_state(STREAMS[step][rank])
        return (model.layer(x) - x[:, :1]).pow(2).mean()  # type: ignore[no-any-return]

    nb = 0
    for step in range(upto):
        for rank, x in enumerate(BATCHES[step]):
            loss_of(x, step, rank).backward()
            nb += 1
        if (step + 1) % accumulate == 0:
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.grad /= nb
            optimizer.step()
            optimizer.zero_grad()
            nb = 0
    return [loss_of(x[None], upto, rank).item() for rank, batch in enumerate(BATCHES[upto]) for x in batch]


@pytest.mark.parametrize(("accumulate", "ranks"), [(1, 1), (2, 1), (2, 2)])
def test_the_loss_of_each_sample_is_that_of_a_loop_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], accumulate: int, ranks: int
) -> None:
    torch.manual_seed(0)
    first = Model("shuffled").state_dict()
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="the end"):
        trained(tmp_path, "shuffled", 10, accumulate_grad_batches=accumulate, virtual_ranks=ranks, max_nb_epochs=4)
    run = str(tmp_path / "Model/version_0")
    for step in (8, 9):
        model = Model("shuffled")
        model.load_state_dict(first)
        lines = [line.rpartition(": ")[2].split() for line in printed(capsys, run, step, "--loss")]
        assert [int(index) for index, _ in lines] == list(chain.from_iterable(SEEN[step]))
        expected = by_hand(model, step, accumulate)
        assert torch.allclose(torch.tensor([float(loss) for _, loss in lines]), torch.tensor(expected), rtol=1e-5)
    assert "can't be replayed from" in refusal(capsys, run, 2, "--loss")


@pytest.mark.slow
def test_spaced_saves_of_a_run_that_was_killed_are_near_every_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"keep_saves": "spaced", "save_every_nb_batches": 1, "resume": "auto", "max_nb_epochs": 4}
    program = f"""
import os
from pathlib import Path
from tests import test_samples
class Model(test_samples.Model):
    def on_batch_end(self):
        self.trainer._plan.rolling.wait_for_newest()  # none is skipped
        if self.global_step == 20:
            os.kill(os.getpid(), 9)
test_samples.Model = Model
test_samples.trained(Path({str(tmp_path)!r}), "shuffled", **{options!r})
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], capture_output=True)
    assert killed.returncode == -9, killed.stderr
    run = trained(tmp_path, "shuffled", **options)
    steps = sorted(int(path.name[5:17]) for path in Path(run, "checkpoints").glob("*.ckpt"))
    assert steps[0] == 0
    assert steps[-1] == 44
    assert 5 <= len(steps) <= 13
    assert any(0 < step <= 20 for step in steps)
    lines = printed(capsys, run, 25, "--loss")
    assert [int(line.split()[0]) for line in lines] == SEEN[25][0]
    assert len(lines[0].split()) == 2


class Averaging(Model):
    """With BatchNorm, for which one sample is too few."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.layer = nn.Sequential(nn.Linear(2, 6), nn.BatchNorm1d(6), nn.Linear(6, 1))


def test_a_step_that_takes_no_single_sample_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Trainer(**{**QUIET, "max_nb_steps": 6, "resume": "auto"}, default_save_path=tmp_path).fit(Averaging("shuffled"))
    words = [str(tmp_path / "Averaging/version_0"), "6", "--loss", "--module", __name__, "--model", "Averaging"]
    Path(tmp_path, "Averaging/version_0/options.yaml").write_text("max_nb_epochs: 3\n")
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "training_step raises for sample" in err
    assert "takes a batch of one" in err


# ---------------------------------------------------------------------------------------- the command line
SCRIPT = """
import torch
from torch.utils.data import DataLoader
from pytorch_lightning import LightningModule, Trainer


class Model(LightningModule):
    def __init__(self, hparams):
        super().__init__(hparams)
        self.layer = torch.nn.Linear(1, hparams.width)

    def training_step(self, data_batch, batch_nb):
        print(self.global_step, data_batch.flatten().int().tolist())
        return self.layer(data_batch).pow(2).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.001)

    @property
    def tng_dataloader(self):
        return DataLoader(torch.arange(20.0)[:, None], batch_size=3, shuffle=True)


if __name__ == "__main__":
    from argparse import Namespace
    Trainer(max_nb_epochs=2, save_every_nb_batches=5, progress_bar=False, seed=1).fit(Model(Namespace(width=3)))
"""


@pytest.mark.slow
def test_the_command_builds_the_class_of_the_script_with_the_hparams_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)

    def run(*words: str) -> str:
        environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    trained = dict(line.split(" ", 1) for line in run("train.py").splitlines() if line[:1].isdigit() and "[" in line)
    command = ["-m", "pytorch_lightning", "samples", "lightning_logs/Model/version_0", "9", "--script", "train.py"]
    place, indices = run(*command).splitlines()
    assert place == "global_step 9: epoch 1, batch_nb 2"
    assert [int(n) for n in indices.split()] == eval(trained["9"])


def test_a_run_names_no_code_and_of_several_classes_the_person_chooses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(trained(tmp_path, "shuffled", max_nb_steps=4))
    other = run.parents[1] / "Dataset" / "version_0"  # a name that this file has imported
    other.parent.mkdir()
    run.rename(other)
    assert main([str(other), "1", "--module", __name__]) == 1
    assert "of which class is the run: Model, Leaving, Averaging? Pass --model NAME." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(other), "1"])
    assert "one of the arguments --script --module is required" in capsys.readouterr().err
