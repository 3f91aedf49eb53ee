"""Logs of a run that was cut and resumed are those of one that wasn't: each row and each point is there once."""

import csv
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from pytorch_lightning import LightningModule
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.root_module.tags import read_tags
from tests.recorder import quiet_trainer, rows_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from test_tube import Experiment

NB = 10


class Cut(LightningModule):
    """Ten batches an epoch and a validation. Raises after the batch ``after``, or in the step of batch ``inside``."""

    after: ClassVar[int | None] = None
    inside: ClassVar[int | None] = None

    def __init__(self) -> None:
        super().__init__({"lr": 0.1})
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 1)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.global_step == Cut.inside:
            raise KeyError("cut")
        return self.layer(data_batch).pow(2).mean()

    def on_batch_end(self) -> None:
        writer = self.experiment if isinstance(self.experiment, Experiment) else None
        if writer is not None:  # an axis of the user's own, on which all points lie above the trainer's
            writer.add_scalar("samples", 1.0, 1000 + 8 * self.global_step)
        if self.global_step == Cut.after:
            raise KeyError("cut")

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.layer(data_batch).pow(2).mean()

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": outputs[0]}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    @property
    def tng_dataloader(self) -> Any:
        return [torch.full((2, 4), (i + 1) / NB) for i in range(NB)]

    @property
    def val_dataloader(self) -> Any:
        return [torch.ones(2, 4)]


class InsideOnly(Cut):
    """Without hooks of its own: a window that fails is taken back."""

    on_batch_end = LightningModule.on_batch_end


@pytest.fixture(autouse=True)
def uncut() -> Iterator[None]:
    Cut.after = Cut.inside = None
    yield
    Cut.after = Cut.inside = None


def fit(folder: Path, model: type[Cut] = Cut, experiment: Any = None, **options: Any) -> Any:
    """One start of the same program."""
    made = Experiment(save_dir=str(folder), name="tt", version=0, autosave=False)
    loggers = experiment or [
        made,
        CSVLogger(folder, name="csv", version=0),
        TensorBoardLogger(folder, name="tb", version=0),
    ]
    options = {"add_log_row_interval": 3, "save_every_nb_batches": 4, "max_nb_epochs": 3, **options}
    silence = ("not-shuffled", "first-save", "other-attributes")
    trainer = quiet_trainer(folder, experiment=loggers, resume="auto", silence=silence, **options)
    trainer.fit(model())
    return trainer


def rows_in(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k != "created_at" and v} for row in csv.DictReader(file)]


def points_in(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What a TensorBoard shows that is opened now."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    # files of one second may be read in another order
    scalars = {tag: sorted((e.step, e.value) for e in events.Scalars(tag)) for tag in events.Tags()["scalars"]}
    return {**scalars, **{tag: [(len(events.Tensors(tag)), 0.0)] for tag in events.Tags()["tensors"]}}


def logs_in(folder: Path) -> dict[str, Any]:
    kinds = {"csv": ["csv"], "tt": ["csv", "tf"], "tb": ["tf"]}
    return {
        f"{name} {kind}": rows_in(folder / name / "version_0/metrics.csv")
        if kind == "csv"
        else points_in(folder / name / "version_0/tf")
        for name, kinds_of in kinds.items()
        for kind in kinds_of
    }


@pytest.mark.parametrize("after", [(9,), (11,), (12, 13), (20,), (21, 22)])
def test_a_log_has_each_row_and_each_point_once(tmp_path: Path, after: tuple[int, ...]) -> None:
    for Cut.after in after:  # the validation at batch 10 is logged, and validated again after the save at 8
        with pytest.raises(KeyError):
            fit(tmp_path / "cut")
    Cut.after = None
    fit(tmp_path / "cut")
    fit(tmp_path / "whole")
    whole, cut = logs_in(tmp_path / "whole"), logs_in(tmp_path / "cut")
    assert cut == whole
    for found in (cut["tb tf"], cut["tt tf"]):  # and both are what they should be
        assert [step for step, _ in found["val_loss"]] == [9, 19, 29]
        assert [step for step, _ in found["tng_loss"]] == [e * NB + b for e in range(3) for b in (0, 3, 6, 9)]
        assert found["hparams/text_summary"] == [(1, 0.0)], "once, also where it is text"
    assert [step for step, _ in cut["tt tf"]["samples"]] == [1000 + 8 * n for n in range(3 * NB)]


def test_a_row_of_a_window_that_was_taken_back_is_there_once(tmp_path: Path) -> None:
    options: dict[str, Any] = {"accumulate_grad_batches": 4, "add_log_row_interval": 1, "model": InsideOnly}
    Cut.inside = 6  # its window began at 4: the rows of 4 and 5 were logged
    with pytest.raises(KeyError):
        fit(tmp_path / "cut", **options)
    Cut.inside = None
    fit(tmp_path / "cut", **options)
    fit(tmp_path / "whole", **options)
    assert logs_in(tmp_path / "cut") == logs_in(tmp_path / "whole")
    assert [step for step, _ in logs_in(tmp_path / "cut")["tb tf"]["tng_loss"]] == list(range(3 * NB))


def test_what_is_logged_after_a_resumed_fit_hides_nothing(tmp_path: Path) -> None:
    Cut.after = 12
    with pytest.raises(KeyError):
        fit(tmp_path)
    Cut.after = None
    trainer = fit(tmp_path)
    trainer.validate()
    for name in ("tb", "tt"):
        steps = [step for step, _ in points_in(tmp_path / name / "version_0/tf")["tng_loss"]]
        assert steps == [e * NB + b for e in range(3) for b in (0, 3, 6, 9)]


@pytest.mark.parametrize("first", ["csv", "tb", "tt"])
def test_loggers_of_different_versions_each_resume_their_own(
    tmp_path: Path, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One whose name had earlier runs, one with a number of its own, and one without either."""
    numbers = {"csv": 2, "tb": 7, "tt": 0}

    def loggers() -> list[Any]:
        made = {
            "csv": lambda: CSVLogger(tmp_path, name="csv"),
            "tb": lambda: TensorBoardLogger(tmp_path, name="tb", version=7),
            "tt": lambda: Experiment(save_dir=str(tmp_path), name="tt", autosave=False),
        }
        return [made[name]() for name in sorted(made, key=lambda name: (name != first, name))]

    (tmp_path / "csv/version_1").mkdir(parents=True)
    Cut.after = 14
    with pytest.raises(KeyError):
        fit(tmp_path, experiment=loggers())
    Cut.after = None
    fit(tmp_path, experiment=loggers())
    assert "isn't as it was" not in capsys.readouterr().err
    steps = [e * NB + b for e in range(3) for b in (0, 3, 6, 9)]
    for name, number in numbers.items():
        made = {path.name for path in (tmp_path / name).iterdir()}
        assert made == {f"version_{number}"} | ({"version_1"} if name == "csv" else set())
        folder = tmp_path / name / f"version_{number}"
        if name != "tb":
            rows = [row for row in rows_in(folder / "metrics.csv") if "tng_loss" in row]
            assert [int(row["global_step"]) for row in rows] == steps
        if name != "csv":
            assert [step for step, _ in points_in(folder / "tf")["tng_loss"]] == steps


def test_a_run_whose_folders_were_renamed_is_logged_there(tmp_path: Path) -> None:
    def loggers() -> list[Any]:
        return [CSVLogger(tmp_path, name="csv"), TensorBoardLogger(tmp_path, name="tb")]

    fit(tmp_path, experiment=loggers(), max_nb_epochs=1)
    for name in ("csv", "tb"):
        (tmp_path / name / "version_0").rename(tmp_path / name / "version_5")
    fit(tmp_path, experiment=loggers(), max_nb_epochs=2)
    assert [path.name for name in ("csv", "tb") for path in (tmp_path / name).iterdir()] == ["version_5"] * 2
    points = points_in(tmp_path / "tb/version_5/tf")["tng_loss"]
    assert [step for step, _ in points] == [e * NB + b for e in range(2) for b in (0, 3, 6, 9)]


class Tracker(Logger):
    """Notes what it is told, as one that opens a run somewhere else."""

    folder = version = None
    opened: ClassVar[list[str]] = []

    def __init__(self) -> None:
        self.id, self.calls = "", list[str]()

    def log_hyperparams(self, hparams: dict[str, Any]) -> None:
        self.calls.append("hparams")
        if not self.id:
            self.id = f"run {len(Tracker.opened)}"
            Tracker.opened.append(self.id)

    def log_metrics(self, metrics: dict[str, Any], step: int) -> None:
        pass

    def save(self) -> None:
        pass

    def close(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"id": self.id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls.append("state")
        self.id = state["id"]


def test_a_logger_learns_which_run_it_was_before_it_opens_one(tmp_path: Path) -> None:
    Tracker.opened.clear()
    trackers = [Tracker(), Tracker()]
    for nb, tracker in enumerate(trackers, 1):
        fit(tmp_path, experiment=tracker, max_nb_epochs=nb)
    assert (trackers[1].calls, Tracker.opened) == (["state", "hparams"], ["run 0"])


class Broken(Tracker):
    def state_dict(self) -> dict[str, Any]:
        raise ConnectionError("gone")


def test_a_logger_whose_state_cannot_be_had_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for nb in (1, 2):
        assert fit(tmp_path, experiment=Broken(), max_nb_epochs=nb).global_step == nb * NB
    assert "Broken failed; training continues" in capsys.readouterr().err


@pytest.mark.parametrize("state", [None, [1], {1: 2}], ids=["none", "list", "number"])
def test_a_logger_whose_state_is_no_dict_by_name_is_said_and_the_run_resumes(
    tmp_path: Path, state: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    class Odd(Tracker):
        def state_dict(self) -> dict[str, Any]:
            return state  # type: ignore[no-any-return]

    Cut.after = 12
    with pytest.raises(KeyError):
        fit(tmp_path, experiment=[Odd(), CSVLogger(tmp_path, "csv", 0)])
    assert "its state_dict() returned" in capsys.readouterr().err
    Cut.after = None
    fit(tmp_path, experiment=[Odd(), CSVLogger(tmp_path, "csv", 0)])
    rows = [row for row in rows_in(tmp_path / "csv/version_0/metrics.csv") if "tng_loss" in row]
    assert [int(row["global_step"]) for row in rows] == [e * NB + b for e in range(3) for b in (0, 3, 6, 9)]


class ByHand(Cut):
    def on_batch_end(self) -> None:
        if self.global_step % 7 == 0:
            self.experiment.log({"mine": float(self.global_step)})

    def on_epoch_end(self) -> None:
        self.experiment.log({"given": 1.0}, 5)


def test_rows_by_hand_say_where_they_were_logged(tmp_path: Path) -> None:
    fit(tmp_path, model=ByHand, experiment=CSVLogger(tmp_path, name="csv", version=0), max_nb_epochs=2)
    rows = [row for row in rows_in(tmp_path / "csv/version_0/metrics.csv") if "mine" in row]
    place = [tuple(int(row[name]) for name in ("epoch", "batch_nb", "global_step")) for row in rows]
    assert place == [(0, 0, 0), (0, 7, 7), (1, 4, 14)]
    assert [float(row["mine"]) for row in rows] == [0.0, 7.0, 14.0]
    given = [row for row in rows_in(tmp_path / "csv/version_0/metrics.csv") if "given" in row]
    assert [row["global_step"] for row in given] == ["5", "5"]


class Short(Cut):
    """Ends each epoch after four batches."""

    def on_batch_start(self, data_batch: Any) -> Any:
        return -1 if self.trainer.batch_nb == 4 else None


@pytest.mark.parametrize(("model", "last"), [(Cut, ("1", "9", "19")), (Short, ("1", "3", "7"))])
def test_a_row_after_the_fit_has_the_place_of_the_last_batch(tmp_path: Path, model: Any, last: Any) -> None:
    trainer = fit(tmp_path, model=model, experiment=CSVLogger(tmp_path, name="csv", version=0), max_nb_epochs=2)
    trainer.validate()
    rows = rows_in(tmp_path / "csv/version_0/metrics.csv")
    assert tuple(rows[-1][name] for name in ("epoch", "batch_nb", "global_step")) == last
    assert not [row for row in rows if row["batch_nb"].startswith("-")]


@pytest.mark.parametrize("kind", ["csv", "tt"])
@pytest.mark.parametrize(("text", "lost"), [("", 5), ("half", 1), ("after", 0), ("none", 0)])
def test_rows_that_are_missing_are_reported_and_a_half_line_is_mended(
    tmp_path: Path, kind: str, text: str, lost: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a machine that lost its power may leave, or somebody who tidied up."""
    fit(tmp_path / "run", max_nb_epochs=1)
    path = tmp_path / "run" / kind / "version_0/metrics.csv"
    before = path.read_text()
    if text == "half":
        path.write_text(before[:-9])
    elif text == "after":
        path.write_text(before + "1,2,")
    elif text == "":
        path.unlink()
    fit(tmp_path / "run", max_nb_epochs=2)
    fit(tmp_path / "whole", max_nb_epochs=2)
    said = capsys.readouterr().err
    assert (f"lacks {lost} of its 5 rows" in said) == bool(lost), said
    assert ("isn't as it was" in said) == bool(lost)
    whole = rows_in(tmp_path / "whole" / kind / "version_0/metrics.csv")
    assert rows_in(path) == whole[: 5 - lost] + whole[5:]


def test_event_files_that_are_missing_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path, max_nb_epochs=1)
    for path in (tmp_path / "tb/version_0/tf").iterdir():
        path.unlink()
    fit(tmp_path, max_nb_epochs=2)
    assert "it lacks a part of events.out.tfevents" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "tt"])
def test_a_carriage_return_in_a_name_or_a_value_survives(tmp_path: Path, kind: str) -> None:
    class Odd(Cut):
        def __init__(self) -> None:
            super().__init__()
            self.hparams = {"note": "a\rb", "lines": "c\r\nd\ne", "lr": 0.1}

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return {"loss": super().training_step(data_batch, batch_nb), "prog": {"x\ry": 0.5}}

    for nb in (1, 2):
        fit(tmp_path, model=Odd, max_nb_epochs=nb)
    folder = tmp_path / kind / "version_0"
    assert vars(read_tags(folder / "meta_tags.csv")) == {"note": "a\rb", "lines": "c\r\nd\ne", "lr": 0.1}
    assert [float(row["x\ry"]) for row in rows_in(folder / "metrics.csv") if "tng_loss" in row] == [0.5] * 8


# ------------------------------------------------------------------------------------------------- gradient norms
class OneLoss(LightningModule):
    """Two optimizers. ``true`` holds each step's gradients, in the order of the parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 3), nn.Linear(3, 1)

    def loss(self, data_batch: Any) -> Any:
        return (5 * self.b(self.a(data_batch))).pow(2).mean()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.loss(data_batch)

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(layer.parameters(), lr=0.01) for layer in (self.a, self.b)]

    @property
    def tng_dataloader(self) -> Any:
        return [torch.full((2, 4), float(i)) for i in range(1, 5)]


class OneLossEach(OneLoss):
    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
        return self.loss(data_batch)


def true_norms(each: bool, accumulate: int, clip: float, p: float) -> list[list[float]]:
    """By hand: the norms of each step's gradients, and of all of them together."""
    model, found = OneLoss(), []
    optimizers, batches = model.configure_optimizers(), model.tng_dataloader
    for start in range(0, len(batches), accumulate):
        norms: list[float] = []
        window = batches[start : start + accumulate]
        turns = [[0], [1]] if each else [[0, 1]]
        gradients: list[Any] = []
        for turn in turns:  # without accumulation the second turn sees the first one's step
            model.zero_grad()
            for batch in window:
                (model.loss(batch) / len(window)).backward()
            own = [p for i in turn for p in (model.a, model.b)[i].parameters()]
            gradients.append((turn, [(parameter, parameter.grad.clone()) for parameter in own]))
            if accumulate == 1 or turn == turns[-1]:
                for which, held in gradients:
                    norms += [float(gradient.norm(p)) for _, gradient in held]
                    for parameter, gradient in held:
                        parameter.grad = gradient
                    if clip:
                        nn.utils.clip_grad_norm_([parameter for parameter, _ in held], clip)
                    for i in which:
                        optimizers[i].step()
                gradients.clear()
        found.append([*norms, float(torch.tensor(norms).norm(p))])
    return found


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"gradient_clip": 0.5}])
@pytest.mark.parametrize("model", [OneLoss, OneLossEach])
def test_the_norms_are_those_of_every_optimizers_gradients(
    tmp_path: Path, model: type[OneLoss], options: dict[str, Any], p: int
) -> None:
    accumulate = options.get("accumulate_grad_batches", 1)
    quiet_trainer(tmp_path, track_grad_norm=p, add_log_row_interval=1, **options).fit(model())
    names = [f"grad_{p}_norm_{i}" for i in (0, 1, 2, 3, "total")]
    logged = [[float(row[name]) for name in names] for row in rows_of(tmp_path, model.__name__) if row[names[0]]]
    true = true_norms(model is OneLossEach, accumulate, options.get("gradient_clip", 0), p)
    assert len(logged) == len(true) == 4 // accumulate
    for ours, theirs in zip(logged, true, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize(("virtual_ranks", "cuts"), [(1, (2, 4, 5, 7)), (2, (1, 2, 3))])
def test_a_row_of_a_resumed_run_has_the_norms_of_the_window_before(
    tmp_path: Path, virtual_ranks: int, cuts: tuple[int, ...]
) -> None:
    options: dict[str, Any] = {
        "track_grad_norm": 2,
        "accumulate_grad_batches": 2,
        "virtual_ranks": virtual_ranks,
        "save_every_nb_batches": 1,
        "max_nb_epochs": 1,
    }
    fit(tmp_path / "whole", **options, experiment=CSVLogger(tmp_path / "whole", "csv", 0))
    for after in cuts:
        folder = tmp_path / str(after)
        Cut.after = after
        with pytest.raises(KeyError):
            fit(folder, **options, experiment=CSVLogger(folder, "csv", 0))
        Cut.after = None
        fit(folder, **options, experiment=CSVLogger(folder, "csv", 0))
        assert rows_in(folder / "csv/version_0/metrics.csv") == rows_in(tmp_path / "whole/csv/version_0/metrics.csv")


def test_a_window_that_was_taken_back_has_its_norms_still(tmp_path: Path) -> None:
    """The row of batch 6 was logged with the norms of the window before, and is logged again."""
    options: dict[str, Any] = {"track_grad_norm": 2, "accumulate_grad_batches": 2, "max_nb_epochs": 1}
    options |= {"model": InsideOnly, "save_every_nb_batches": None}
    Cut.inside = 7
    for folder, is_cut in ((tmp_path / "cut", True), (tmp_path / "whole", False)):
        if is_cut:
            with pytest.raises(KeyError):
                fit(folder, **options)
        Cut.inside = None
        fit(folder, **options)
    assert logs_in(tmp_path / "cut") == logs_in(tmp_path / "whole")
