"""``python -m pytorch_lightning from_lightning``: programs of Lightning 2 that run here once they are converted."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pytorch_lightning
from pytorch_lightning.commands import main
from tests.commands.run_lightning import PROGRAMS, RECORD, run

pytest.importorskip("libcst")
from pytorch_lightning.commands.conversion.program import convert

ROOT = Path(pytorch_lightning.__file__).parent.parent
PAGE = ROOT / "docs" / "coming_from_lightning.md"
NAMES = sorted(path.stem for path in PROGRAMS.glob("*.py"))
EACH_KIND = ("best_checkpoint", "data_module", "gan", "metrics_callback", "shared_step", "several_val_loaders")
EXPECTED = json.loads(RECORD.read_text())
"""What the programs end with where Lightning 2.6.6 runs them as they are."""


def converted(name: str) -> str:
    return convert((PROGRAMS / f"{name}.py").read_text()).text


def agrees(name: str, folder: Path) -> None:
    """The converted program ends with the weights and numbers that it ends with in Lightning."""
    path = folder / f"{name}.py"
    path.write_text(converted(name))
    assert run(path) == pytest.approx(EXPECTED[name], rel=1e-5, abs=1e-6), name


def needs(name: str) -> str | None:
    """A package that the program needs and that isn't here."""
    is_missing = importlib.util.find_spec("torchmetrics") is None
    return "torchmetrics" if is_missing and "torchmetrics" in (PROGRAMS / f"{name}.py").read_text() else None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", EACH_KIND)
def test_a_converted_program_ends_as_in_lightning(name: str, tmp_path: Path) -> None:
    agrees(name, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_of_them_run_unchanged_and_end_as_in_lightning(tmp_path: Path) -> None:
    for name in NAMES:
        if needs(name) is None:
            agrees(name, tmp_path)


def test_the_page_says_how_many() -> None:
    assert set(NAMES) == set(EXPECTED)
    marked = sum("# from_lightning:" in converted(name) for name in NAMES)
    text = " ".join(PAGE.read_text().split())
    assert f"{len(NAMES)} programs" in text
    assert f"all {len(NAMES)} run unchanged" in text
    assert f"{marked} of them have a comment" in text


def test_a_conversion_of_a_conversion_changes_nothing() -> None:
    for name in ("best_checkpoint", "classifier", "data_module", "results", "shared_step"):
        once = converted(name)
        assert convert(once).text == once


@pytest.mark.parametrize("name", NAMES)
def test_no_name_of_lightning_is_left(name: str) -> None:
    left = r"\b(lightning\.|self\.log\(|on_train_|datamodule|max_epochs|training_epoch_end|DataModule\))"
    code = re.sub(r"#.*|\"\"\".*?\"\"\"", "", converted(name), flags=re.DOTALL)
    assert not re.search(left, code.replace("pytorch_lightning.", "")), re.search(left, code)


# ------------------------------------------------------------------ single rules
HEAD = "import lightning as L\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "L.Trainer(max_epochs=3,  # three\n    logger=False)",
            "L.Trainer(max_nb_epochs=3,  # three\n    logger=False)",
        ),
        ("L.Trainer(accelerator='gpu', devices=2, strategy='ddp')", "L.Trainer(gpus=2, distributed_backend='ddp')"),
        ("L.Trainer(accelerator='cpu', devices=2, strategy='ddp')", "L.Trainer(nb_processes=2)"),
        ("L.Trainer(precision='bf16-mixed', gradient_clip_val=1.0)", "L.Trainer(precision='bf16', gradient_clip=1.0)"),
        ("L.Trainer(max_time='00:01:30:00')", "L.Trainer(max_time=90)"),
        ("L.Trainer(max_steps=100)", "L.Trainer(max_nb_steps=100, max_nb_epochs=1000000)"),
        ("L.Trainer(callbacks=[])", "L.Trainer()"),
        (
            "t = L.Trainer(callbacks=[L.pytorch.callbacks.EarlyStopping('val_loss', patience=5)])",
            "t = L.Trainer(early_stop_callback=EarlyStopping('val_loss', patience=5, mode=\"min\"))",
        ),
        (
            "t = L.Trainer()\nt.fit(model, ckpt_path='a.ckpt')",
            "t = L.Trainer()\nt.resume = 'a.ckpt'\nt.fit(model)",
        ),
        (
            "class D(L.LightningDataModule):\n    def setup(self, s): ...\n\na, t = D(), L.Trainer()\nt.fit(m, a)",
            'class D:\n    def setup(self, s): ...\n\na, t = D(), L.Trainer()\na.setup("fit")\nt.fit(m)',
        ),
        ("t = L.Trainer()\nx = t.progress_bar_metrics['a'].item()", "t = L.Trainer()\nx = t.tqdm_metrics['a']"),
        ("t = L.Trainer()\nt.test(model, dataloaders=a)", "t = L.Trainer()\nprint(t.test(model, dataloader=a))"),
        ("t = L.Trainer()\nt.test(model, verbose=False)", "t = L.Trainer()\nt.test(model)"),
        ("t = L.Trainer()\nt.test(model, dataloaders=a)[0]['b']", "t = L.Trainer()\nt.test(model, dataloader=a)['b']"),
    ],
)
def test_a_rule(old: str, new: str) -> None:
    text = convert(HEAD + old + "\n").text
    assert text.endswith(new + "\n"), text
    assert "# from_lightning:" not in text


@pytest.mark.parametrize(
    ("old", "words"),
    [
        ("L.Trainer(min_steps=3)", "There is no minimum of steps"),
        ("L.Trainer(limit_val_batches=3)", "val_percent_check=0.1"),
        ("L.Trainer(**options)", "can't be seen here"),
        ("L.Fabric()", "There is no Fabric"),
        ("from lightning.pytorch.cli import LightningCLI", "Trainer.from_args"),
        ("from lightning.pytorch.loggers import WandbLogger", "Write a Logger of your own"),
        ("from lightning.pytorch.utilities import rank_zero_only", "there is no such thing here"),
    ],
)
def test_what_needs_a_person_is_marked(old: str, words: str) -> None:
    assert words in " ".join(convert(HEAD + old + "\n").text.replace("\n#", " ").split())


HOOKS = ["backward", "lr_scheduler_step", "configure_callbacks", "on_validation_batch_end", "on_predict_end"]


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_nobody_calls_is_marked(hook: str) -> None:
    text = convert(f"{HEAD}class A(L.LightningModule):\n    def {hook}(self, *args):\n        pass\n").text
    assert f"# from_lightning: {hook}: " in text


# ------------------------------------------------------------------ the command
def test_the_command_prints_writes_and_replaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, other = tmp_path / "train.py", tmp_path / "new.py"
    path.write_text(HEAD + "L.Trainer(max_epochs=1)\r\n")
    wanted = "import pytorch_lightning as L\nL.Trainer(max_nb_epochs=1)\r\n"
    assert main(["from_lightning", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out == wanted
    assert "no place needs a person" in err
    assert main(["from_lightning", str(path), "-o", str(other)]) == 0
    assert other.read_bytes().decode() == wanted
    assert main(["from_lightning", str(path), "-o", str(other)]) == 1, "it is there"
    assert main(["from_lightning", str(path), "--in-place"]) == 0
    assert path.read_bytes().decode() == wanted


@pytest.mark.parametrize("text", [b"def f(:\n", b"\xff\xfe", None])
def test_what_cannot_be_read_is_one_line(
    text: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "train.py"
    if text is not None:
        path.write_bytes(text)
    assert main(["from_lightning", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("python -m pytorch_lightning from_lightning: ")
    assert "train.py" in err


def test_a_program_without_lightning_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "train.py"
    path.write_text("import torch\n\nx = 1   # one\n")
    assert main(["from_lightning", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out == path.read_text()
    assert "doesn't import Lightning" in err


def test_without_libcst_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "libcst.py").write_text("raise ModuleNotFoundError(name='libcst')")
    (tmp_path / "train.py").write_text(HEAD)
    done = subprocess.run(
        [sys.executable, "-m", "pytorch_lightning", "from_lightning", "train.py"], cwd=tmp_path, text=True,
        capture_output=True, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "python -m pytorch_lightning from_lightning: it needs libcst. Write: pip install libcst\n"


STEP = f"{HEAD}class A(L.LightningModule):\n    def "


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("train_dataloader(self):\n        return {'a': one, 'b': two}\n", "return one loader"),
        ("on_train_batch_end(self, outputs, batch, i):\n        print(outputs)\n", "outputs isn't given here"),
        (
            "on_train_start(self):\n        pass\n    def on_fit_start(self):\n        pass\n",
            "add this to on_fit_start",
        ),
        (
            "training_step(self, batch, i):\n        self.manual_backward(a)\n        if i % 2:\n            o.step()\n"
            "    def x(self):\n        self.automatic_optimization = False\n",
            "the optimizers step by hand",
        ),
    ],
)
def test_what_cannot_be_converted_is_marked(method: str, words: str) -> None:
    text = " ".join(convert(STEP + method).text.replace("#", " ").split())
    assert f"from_lightning: {words}" in text or words in text.partition("from_lightning:")[2], text
