"""``python -m pytorch_lightning from_lightning``: programs of Lightning 2 that run here once they are converted."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import pytorch_lightning
from pytorch_lightning.commands import main
from tests.commands.run_lightning import PROGRAMS, RECORD, run
from tests.recorder import quiet_trainer

pytest.importorskip("libcst")
from pytorch_lightning.commands.conversion.program import convert

ROOT = Path(pytorch_lightning.__file__).parent.parent
PAGE = ROOT / "docs" / "coming_from_lightning.md"
NAMES = sorted(path.stem for path in PROGRAMS.glob("*.py"))
EACH_KIND = (
    "averaged_weights",
    "best_checkpoint",
    "data_module",
    "gan",
    "metrics_callback",
    "shared_step",
    "several_val_loaders",
)
UNSEEN = (
    *("accumulation_by_epoch", "callback_state", "cli", "combined_loader", "fine_tuning_callback", "folds"),
    *("frozen_and_loaded", "lambda_warm_up", "mixed_precision", "namespace_hparams", "outputs_of_batches"),
    *("own_early_stop", "prediction_writer", "several_test_loaders", "stages", "steps_and_epochs", "stream"),
    *("tensorboard_images", "tuned", "two_monitors"),
)
"""Programs that were written without a look at the converter. It ran four of them unchanged before it learned from the
others."""
DRAWS_OTHERWISE = {"frozen_and_loaded"}
"""Runs, and begins with other weights: ``load_from_checkpoint`` leaves the random generators as they were."""
FOR_A_PERSON = {
    *("accumulation_by_epoch", "mixed_precision", "outputs_of_batches", "steps_and_epochs"),  # a mean over an epoch
    *("cli", "prediction_writer", "tuned"),
}
"""Programs that don't run, or end with other numbers, until somebody looks at their comments."""
EXPECTED = json.loads(RECORD.read_text())
"""What the programs end with where Lightning 2.6.6 runs them as they are."""


def converted(name: str) -> str:
    return convert((PROGRAMS / f"{name}.py").read_text()).text


def agrees(name: str, folder: Path) -> None:
    """The converted program ends with the weights and numbers that it ends with in Lightning."""
    path = folder / f"{name}.py"
    path.write_text(converted(name))
    assert run(path) == pytest.approx(EXPECTED[name], rel=1e-5, abs=1e-5), name


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
        if needs(name) is None and name not in FOR_A_PERSON | DRAWS_OTHERWISE:
            agrees(name, tmp_path)


def test_what_is_left_to_a_person_is_marked() -> None:
    assert not FOR_A_PERSON - set(UNSEEN)
    assert all("# from_lightning:" in converted(name) for name in FOR_A_PERSON)


def test_the_page_says_how_many() -> None:
    assert set(NAMES) == set(EXPECTED)
    seen, text = [name for name in NAMES if name not in UNSEEN], " ".join(PAGE.read_text().split())
    marked = sum("# from_lightning:" in converted(name) for name in seen)
    assert f"Of {len(seen)} programs" in text
    assert f"all {len(seen)} run unchanged" in text
    assert f"{marked} of them have a comment" in text
    assert f"Of {len(UNSEEN)} more programs" in text
    assert f"{len(UNSEEN) - len(FOR_A_PERSON | DRAWS_OTHERWISE)} do so now" in text


def test_a_conversion_of_a_conversion_changes_nothing() -> None:
    for name in ("best_checkpoint", "classifier", "data_module", "results", "shared_step"):
        once = converted(name)
        assert convert(once).text == once


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FOR_A_PERSON])
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
        ("t = L.Trainer()\nr = t.test(m)\nx = r[0]['b']", "t = L.Trainer()\nr = t.test(m)\nx = r['b']"),
        ("t = L.Trainer()\nr = t.test(m)\nf(*r)", "t = L.Trainer()\nr = [t.test(m)]\nf(*r)"),
        (
            "o = dict(max_epochs=3, logger=False)\nL.Trainer(**o)",
            "o = dict(max_nb_epochs=3, logger=False)\nL.Trainer(**o)",
        ),
        ("o = {'max_epochs': 3}\nL.Trainer(**o)", "o = dict(max_nb_epochs=3)\nL.Trainer(**o)"),
        (
            "c = [L.pytorch.callbacks.ModelSummary(), m]\nL.Trainer(callbacks=c)",
            "c = [m]\nL.Trainer(callbacks=c)",
        ),
        (
            "t = L.Trainer()\nt.fit(model, ckpt_path='a/last.ckpt' if f else None)",
            't = L.Trainer()\nt.resume = "auto"\nt.fit(model)',
        ),
        (
            "L.pytorch.callbacks.GradientAccumulationScheduler(scheduling={0: 1, 4: 2})",
            "GradientAccumulationScheduler(scheduling={1: 1, 5: 2})",
        ),
        (
            "L.pytorch.callbacks.ModelCheckpoint('a', filename='{epoch}-{step}')",
            "ModelCheckpoint('a', filename='{epoch}-{global_step}')",
        ),
        (
            "t = L.Trainer()\nc = t.callback_metrics\nx = c['a'].item()",
            "t = L.Trainer()\nc = t.tqdm_metrics\nx = c['a']",
        ),
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
        ("L.Trainer(limit_predict_batches=3)", "Pass predict a loader"),
        ("L.Trainer(**options)", "can't be seen here"),
        ("L.Fabric()", "There is no Fabric"),
        ("from lightning.pytorch.cli import LightningCLI", "Trainer.from_args"),
        ("from lightning.pytorch.loggers import CometLogger", "Write a Tracker of your own"),
        ("L.pytorch.loggers.WandbLogger()", "loggers.WandbLogger(FOLDER, project=NAME"),
        ("L.pytorch.loggers.MLFlowLogger()", "MLflowLogger(FOLDER, experiment=NAME"),
        ("from lightning.pytorch.utilities import rank_zero_warn", "there is no such thing here"),
    ],
)
def test_what_needs_a_person_is_marked(old: str, words: str) -> None:
    assert words in " ".join(convert(HEAD + old + "\n").text.replace("\n#", " ").split())


OWN = "weights='average' takes the average"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("c.EMAWeightAveraging()", "WeightAveraging('ema', use_buffers=True)", OWN),
        (
            "c.EMAWeightAveraging('cpu', False, 0.99, update_every_n_steps=4, update_starting_at_step=10)",
            "WeightAveraging('ema', decay=0.99, start=13, every=4)",
            "use the model's own weights, not those that it began with",
        ),
        (
            "c.EMAWeightAveraging(update_starting_at_step=n)",
            "WeightAveraging('ema', start=n + 1, use_buffers=True)",
            "the model's own weights",
        ),
        (
            "c.EMAWeightAveraging(update_starting_at_epoch=2)",
            "WeightAveraging('ema', use_buffers=True)",
            "update_starting_at_epoch: Write start=n",
        ),
        ("c.WeightAveraging()", "WeightAveraging('swa', use_buffers=True)", OWN),
        ("c.WeightAveraging(avg_fn=f)", "WeightAveraging(f, use_buffers=True)", OWN),
        (
            "c.WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(0.9))",
            "WeightAveraging('ema', decay=0.9, use_buffers=True)",
            OWN,
        ),
        ("c.WeightAveraging(multi_avg_fn=f)", "WeightAveraging(f, use_buffers=True)", "the arguments of avg_fn"),
        ("c.StochasticWeightAveraging(swa_lrs=1e-2)", "WeightAveraging('swa')", "return a torch.optim.swa_utils.SWALR"),
        (
            "c.BackboneFinetuning(5, lambda epoch: 1.5, backbone_initial_ratio_lr=0.2)",
            "Unfreeze({'backbone': 5}, lr_factor=0.2, train_bn=True)",
            "doesn't grow each epoch",
        ),
        (
            "c.BackboneFinetuning(backbone_initial_lr=1e-4)",
            "Unfreeze({'backbone': 10}, lr_factor=0.1, train_bn=True)",
            "backbone_initial_lr: Write lr_factor",
        ),
    ],
)
def test_averages_and_unfreezing(old: str, new: str, words: str) -> None:
    text = convert(f"{HEAD}from lightning.pytorch import callbacks as c\nL.Trainer(callbacks=[{old}])\n").text
    assert f"Trainer(callbacks=[{new}])" in text
    assert f"from pytorch_lightning.callbacks import {new.partition('(')[0]}\n" in text
    assert words in " ".join(text.replace("\n#", " ").split())
    space: dict[str, Any] = {"n": 3, "f": lambda averaged, current, nb: current}
    exec(text, space)  # what it writes is taken here


def test_what_is_tested_is_the_average() -> None:
    program = "t = L.Trainer(callbacks=[c.WeightAveraging()])\nt.fit(m)\nt.test(m)\nA.load_from_checkpoint('a')\n"
    text = convert(f"{HEAD}from lightning.pytorch import callbacks as c\n{program}").text
    assert 't.test(m, weights="average")' in text
    assert "A.load_from_checkpoint('a', weights=\"average\")" in text
    assert "weights" not in convert(HEAD + "t = L.Trainer()\nt.fit(m)\nt.test(m)\n").text


FINE = """from lightning.pytorch.callbacks import BaseFinetuning


class Two(BaseFinetuning):
    def freeze_before_training(self, pl_module):
        self.freeze([pl_module.body.low, pl_module.body.high], train_bn=False)

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.body.high, optimizer)
        if epoch == 3:
            self.unfreeze_and_add_param_group(modules=pl_module.body.low, optimizer=optimizer, train_bn=False)
"""


def test_a_class_that_unfreezes_parts_at_epochs() -> None:
    text = convert(FINE).text
    assert "from_lightning:" not in text
    assert "super().__init__({'body.high': 1, 'body.low': 3}, lr_factor=0.1, train_bn=False)" in text
    space: dict[str, Any] = {}
    exec(text, space)
    assert space["Two"]().epochs == {"body.high": 1, "body.low": 3}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epoch == 3", "epoch >= 3"),
        ("epoch == 3", "epoch == 3 and self.later"),
        ("modules=pl_module.body.low", "modules=pl_module.other"),
        ("modules=pl_module.body.low", "modules=self.parts(pl_module)"),
        ("optimizer=optimizer,", "optimizer=optimizer, initial_denom_lr=2,"),
        ("        self.freeze([", "        print(1)\n        self.freeze(["),
    ],
)
def test_one_that_does_anything_else_is_left(old: str, new: str) -> None:
    program = FINE.replace(old, new)
    assert program != FINE
    text = convert(program).text
    assert "from_lightning: BaseFinetuning: Write Unfreeze" in text
    assert "class Two(BaseFinetuning):" in text


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
        (
            "train_dataloader(self):\n        return L.pytorch.utilities.CombinedLoader([one, two], mode='max_size')\n",
            "CombinedLoader: the modes are 'longest'",
        ),
        (
            "train_dataloader(self):\n        return L.pytorch.utilities.CombinedLoader([one, two])\n",
            'CombinedLoader: write tng_loaders_mode = "shortest"',
        ),
        ("on_train_batch_end(self, outputs, batch, i):\n        print(batch)\n", "batch isn't given here"),
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


OWN_STEPS = f"""{HEAD}import torch


class Model(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.a, self.b = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        first, second = self.optimizers()
        for _ in range(2):
            second.zero_grad()
            self.manual_backward(self.b(batch).pow(2).mean())
            second.step()
        if batch_idx % 2 == 0:
            first.zero_grad()
            self.manual_backward(self.a(batch).pow(2).mean(), retain_graph=True)
            first.step()

    def configure_optimizers(self):
        return torch.optim.SGD(self.a.parameters(), 0.1), torch.optim.SGD(self.b.parameters(), 0.1)

    def train_dataloader(self):
        return [torch.ones(3, 2) * n for n in range(4)]
"""


def test_own_steps_that_are_no_turns_stay_and_do_the_same(tmp_path: Path) -> None:
    text = convert(OWN_STEPS).text
    assert "from_lightning:" not in text, text
    assert "first, second = self.trainer.optimizers" in text
    assert "self.automatic_optimization = False" in text
    space: dict[str, Any] = {}
    exec(text, space)
    model, hand = space["Model"](), space["Model"]()
    hand.load_state_dict(model.state_dict())
    quiet_trainer(tmp_path).fit(model)
    for layer, nbs in ((hand.a, [0, 2]), (hand.b, [0, 0, 1, 1, 2, 2, 3, 3])):
        optimizer = torch.optim.SGD(layer.parameters(), 0.1)
        for nb in nbs:
            optimizer.zero_grad()
            layer(torch.ones(3, 2) * nb).pow(2).mean().backward()
            optimizer.step()
    assert all(map(torch.equal, model.parameters(), hand.parameters()))
    single = convert(OWN_STEPS.replace("first, second = self.optimizers()", "second = self.optimizers()")).text
    assert "second = self.trainer.optimizers[0]" in single
    by_schedule = OWN_STEPS.replace("        for _ in", "        self.lr_schedulers().step()\n        for _ in")
    assert "from_lightning: the optimizers step by hand" in " ".join(convert(by_schedule).text.split())
