"""``python -m pytorch_lightning``: one entry for all commands, beside the modules that are entries of their own."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.commands import COMMANDS, main


def entry(module: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True)


def test_without_a_word_or_with_help_it_says_what_there_is() -> None:
    helped, alone = entry("pytorch_lightning", "--help"), entry("pytorch_lightning")
    assert (helped.returncode, helped.stderr, alone.returncode, alone.stdout) == (0, "", 2, "")
    assert helped.stdout == alone.stderr
    lines = [line.split(maxsplit=1) for line in helped.stdout.splitlines() if line.startswith("  ")]
    assert [name for name, _ in lines] == [*COMMANDS]
    assert {"new", "from_lightning", "replay", "consolidate"} <= {*COMMANDS}
    assert all(text for _, text in lines)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_by_its_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m pytorch_lightning {name} ")


@pytest.mark.parametrize("word", ["nwe", "New", "--new", "train.py", "\n"])
def test_another_command_is_one_line_with_those_there_are(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert repr(word) in err
    assert ", ".join(COMMANDS) in err


@pytest.mark.parametrize(
    ("word", "meant"), [("repaly", "replay"), ("Consolidate", "consolidate"), ("from-lightning", "from_lightning")]
)
def test_the_nearest_command_is_named(word: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    assert f"Did you mean {meant!r}?" in capsys.readouterr().err
    assert main(["evaluate_everything"]) == 2
    assert "Did you mean" not in capsys.readouterr().err


class Fragile(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, data_batch: torch.Tensor, batch_nb: int) -> torch.Tensor:
        if batch_nb == 2:
            raise ValueError("a fragile batch")
        return self.layer(data_batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    @property
    def tng_dataloader(self) -> torch.utils.data.DataLoader[torch.Tensor]:
        return torch.utils.data.DataLoader(torch.randn(8, 2), batch_size=2, shuffle=True)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["pytorch_lightning", "replay"], ["pytorch_lightning.replay"]], ids=["new", "old"])
def test_replay_by_both_names(words: list[str], tmp_path: Path) -> None:
    trainer = Trainer(max_nb_epochs=1, default_save_path=str(tmp_path), progress_bar=False, silence=("no-validation",))
    with pytest.raises(ValueError, match="a fragile batch"):
        trainer.fit(Fragile())
    (bundle,) = tmp_path.rglob("bundle.pt")
    done = entry(*words, str(bundle), "--script", __file__)
    assert done.returncode == 1
    assert done.stdout.startswith("epoch 0, batch_nb 2, global_step 2, samples ")
    assert done.stderr.rstrip().splitlines()[-1] != done.stdout
    assert "ValueError: a fragile batch" in done.stderr


@pytest.mark.slow
def test_consolidate_by_both_names(tmp_path: Path) -> None:
    done = [
        entry("pytorch_lightning", "consolidate", str(tmp_path)),
        entry("pytorch_lightning.checkpoints", "consolidate", str(tmp_path)),
    ]
    assert [one.returncode for one in done] == [1, 1]
    assert done[0].stderr == done[1].stderr
    assert str(tmp_path) in done[0].stderr
