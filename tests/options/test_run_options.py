"""``options.yaml`` in the folder of a run, which starts that run anew."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback
from tests.options.test_option_files import new_parser
from tests.recorder import Recorder

PROGRAM = """
import sys, torch
from argparse import ArgumentParser
from test_tube import HyperOptArgumentParser
from pytorch_lightning import LightningModule, Trainer, add_default_args, seed_everything

class Model(LightningModule):
    def __init__(self, hparams):
        super().__init__(hparams)
        self.layer = torch.nn.Linear(4, hparams.width)
    def training_step(self, data_batch, batch_nb):
        return self.layer(data_batch).pow(2).mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)
    @property
    def tng_dataloader(self):
        data = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
        return torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)

if __name__ == "__main__":
    parent = {maker}(add_help=False)
    add_default_args(parent, ".")
    parser = {maker}(parents=[parent])
    parser.add_argument("--lr", default=0.1, type=float)
    parser.add_argument("--width", default=8, type=lambda text: 2 * int(text))
    parser.add_argument("--api_key", default="")
    parser.add_argument("--note_file")
    hparams = parser.parse_args()
    seed_everything(hparams.seed)
    trainer = {trainer}
    model = Model(hparams)
    trainer.fit(model)
    torch.save([trainer.options, dict(model.state_dict()), hparams.lr, hparams.width], hparams.note_file)
""".replace(
    'parser.add_argument("--api_key"', 'parser.add_argument("--note_file")\n    parser.add_argument("--api_key"'
)


@pytest.mark.parametrize(
    ("maker", "trainer", "words"),
    [
        ("ArgumentParser", "Trainer.from_args(hparams, progress_bar=False)", ["--accumulate_grad_batches", "1:2,2:3"]),
        ("HyperOptArgumentParser", "Trainer.from_args(hparams)", ["--progress_bar", "false", "--gradient_clip", ".01"]),
        ("ArgumentParser", "Trainer(max_nb_epochs=hparams.max_nb_epochs, seed=hparams.seed)", []),
        ("ArgumentParser", "Trainer.from_args(hparams)", ["--nb_processes", "2", "--lr_scheduler_milestones", "1"]),
    ],
    ids=["overrides", "test-tube", "by hand", "several"],
)
def test_the_file_of_a_run_recreates_it(maker: str, trainer: str, words: list[str], tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(PROGRAM.format(maker=maker, trainer=trainer))

    def run(*words: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", script, *words], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return torch.load(tmp_path / words[-1], weights_only=False)

    first = run(
        *words, "--lr=3e-1", "--width", "3", "--max_nb_epochs", "2", "--seed=4", "--api_key=x1y2", "--note_file", "a"
    )
    file = tmp_path / "lightning_logs/Model/version_0/options.yaml"
    assert "x1y2" not in file.read_text()
    again = run("--config", str(file), "--note_file", "b")
    assert again[0] == first[0]
    assert again[2:] == first[2:] == [0.3, 6]
    assert again[1].keys() == first[1].keys()
    assert all(torch.equal(again[1][name], weight) for name, weight in first[1].items())
    other = run("--config", str(file), "--lr", "0.2", "--note_file", "c")
    assert not torch.equal(other[1]["layer.weight"], first[1]["layer.weight"])


def test_a_run_without_a_command_line_has_its_options_too(tmp_path: Path) -> None:
    model = Recorder()
    model.hparams = {"lr": 0.5, "layers": [1, 2], "function": len, "object": object()}
    Trainer(default_save_path=tmp_path, max_nb_epochs=1, callbacks=[Callback()], resume=None, silence=["a"]).fit(model)
    (path,) = tmp_path.rglob("options.yaml")
    found = yaml.safe_load(path.read_text())
    assert (found["max_nb_epochs"], found["silence"], found["default_save_path"]) == (1, ["a"], str(tmp_path))
    assert "callbacks" not in found
    assert "resume" not in found
    trainer = Trainer.from_args(
        new_parser().parse_args(["--config", str(_without(path, ("lr", "layers")))]), callbacks=[]
    )
    wanted = Trainer(default_save_path=str(tmp_path), max_nb_epochs=1, silence=("a",)).options
    assert {**trainer.options, "callbacks": ()} == wanted


def _without(path: Path, names: Sequence[str]) -> Path:
    lines = [line for line in path.read_text().splitlines() if line.partition(":")[0] not in names]
    (path.parent / "less.yaml").write_text("\n".join(lines))
    return path.parent / "less.yaml"
