"""Figures, images, texts and files reach every logger that shows them, and the run's folder."""

import warnings
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from pytorch_lightning import Trainer
from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from tests.recorder import QUIET, Recorder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from test_tube import Experiment

pytestmark = pytest.mark.filterwarnings("ignore")  # test-tube's and tensorboard's


class Figure:
    """What matplotlib's are here: something with savefig."""

    def savefig(self, file: Any, format: str) -> None:
        Image.new("RGB", (6, 4), (255, 0, 10)).save(file, format)


class Showing(Recorder):
    def on_epoch_end(self) -> None:
        self.experiment.log_figure("conf/usion", Figure())
        self.experiment.log_image("gray", torch.full((1, 2, 3), 0.5))
        self.experiment.log_image("array", numpy.zeros((2, 3, 3), dtype=numpy.uint8))
        self.experiment.log_text("sample", "a < b")
        self.experiment.log_file("notes", __file__)


def fit(logger: Any, model: Any, **options: Any) -> Trainer:
    trainer = Trainer(logger, max_nb_epochs=2, **{**QUIET, **options})
    assert trainer.fit(model) == 1
    return trainer


def shown(folder: Path) -> dict[str, list[int]]:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    found = {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}
    found |= {tag: [event.step for event in events.Tensors(tag)] for tag in events.Tags()["tensors"]}
    found["scalars"] = sorted(events.Tags()["scalars"])  # type: ignore[assignment]
    return found


def test_they_lie_in_the_folder_of_the_run(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, "c")
    fit(logger, Showing())
    assert logger.folder is not None
    found = sorted(str(path.relative_to(logger.folder / "media")) for path in logger.folder.rglob("media/**/*.*"))
    names = [("array_{}.png"), ("conf/usion_{}.png"), ("gray_{}.png"), ("notes_{}.py"), ("sample_{}.txt")]
    assert found == sorted(name.format(step) for name in names for step in (4, 8))
    with Image.open(logger.folder / "media" / "conf" / "usion_4.png") as image:
        assert (image.size, image.getpixel((0, 0))) == ((6, 4), (255, 0, 10))
    with Image.open(logger.folder / "media" / "gray_8.png") as image:
        assert (image.size, image.getpixel((2, 1))) == ((3, 2), 127)
    assert (logger.folder / "media" / "sample_8.txt").read_text() == "a < b"
    assert (logger.folder / "media" / "notes_8.py").read_bytes() == Path(__file__).read_bytes()


def test_tensorboard_shows_them_and_no_charts_of_places(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, "t")
    fit([CSVLogger(tmp_path, "c"), logger], Showing(), add_log_row_interval=1)
    assert logger.folder is not None
    found = shown(logger.folder / "tf")
    for name in ("conf/usion", "gray", "array", "sample/text_summary"):
        assert found[name] == [4, 8], name
    assert "tng_loss" in found["scalars"]
    assert not {"epoch", "batch_nb", "global_step"} & {*found["scalars"]}


def test_a_test_tube_experiment_has_them_too(tmp_path: Path) -> None:
    experiment = Experiment(name="tt", save_dir=str(tmp_path), autosave=False)
    fit(experiment, Showing())
    assert shown(tmp_path / "tt" / "version_0" / "tf")["conf/usion"] == [4, 8]
    assert (tmp_path / "tt" / "version_0" / "media" / "sample_8.txt").exists()


def test_without_a_folder_a_notice_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    class Nowhere(Logger):
        folder = version = None

        def log_hyperparams(self, hparams: Any) -> None: ...
        def log_metrics(self, metrics: Any, step: int) -> None: ...
        def save(self) -> None: ...
        def close(self) -> None: ...

    fit(Nowhere(), Showing())
    assert "log_text('sample') writes nothing" in capsys.readouterr().err


def test_without_a_logger_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit(False, Showing())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda e: e.log_figure("a", torch.zeros(2)), "an image is one of PIL"),
        (lambda e: e.log_image("a", torch.full((2, 2), 255.0)), "floats from 0 to 1"),
        (lambda e: e.log_image("a", torch.zeros(5, 2, 2)), "or 4 channels"),
        (lambda e: e.log_text("../a", "b"), "needs a name"),
    ],
)
def test_what_isnt_one_is_refused(call: Any, words: str, tmp_path: Path) -> None:
    class Wrong(Recorder):
        def on_epoch_end(self) -> None:
            call(self.experiment)

    with pytest.raises(MisconfigurationException, match=words):
        fit(CSVLogger(tmp_path, "c"), Wrong(), crash_bundle=False)


def test_a_module_that_kept_its_experiment_logs_them(tmp_path: Path) -> None:
    class Kept(Showing):
        def __init__(self) -> None:
            super().__init__()
            self.kept = self.experiment

        def on_epoch_end(self) -> None:
            self.kept.log_text("kept", "a")

    logger = CSVLogger(tmp_path, "c")
    fit(logger, Kept())
    assert len(list(tmp_path.rglob("media/kept_*.txt"))) == 2
