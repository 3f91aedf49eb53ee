"""A run that goes on from a save in which something else than weights was changed: each interval follows from its save,
and the whole doesn't."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pytorch_lightning.checkpoints.digest import digests
from pytorch_lightning.verify import main
from tests.forks.models import Model
from tests.forks.test_forks import trained
from tests.test_verify import forge


class Slowing(Model):
    """A hook changes an attribute that the loss depends on."""

    def on_batch_end(self) -> None:
        self.alpha = self.alpha * 0.95


def change_newest(run: Path, change: Any) -> None:
    path = max(run.glob("checkpoints/*.ckpt"))
    saved = torch.load(path, weights_only=True)
    before = digests(saved)
    change(saved)
    torch.save(saved, path)
    forge(run, lambda entry: entry.update(sha256=digests(saved)) if entry["sha256"] == before else None)


def verified(run: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    status = main([str(run), "--module", __name__, "--model", "Slowing", "--all"])
    return status, capsys.readouterr().out


def alpha(parts: Any) -> None:
    parts["attributes"]["values"]["module"]["alpha"][1] = 3.0


def left_out(parts: Any) -> None:
    parts["rewound"] = {"skip": [[9, 11]]}


CHANGES = {
    alpha: "state: ['attributes']['values']['module']['alpha'][1] (by 2.3",
    left_out: "state: ['rewound']",
}


@pytest.mark.parametrize("change", [None, *CHANGES])
def test_what_was_changed_in_a_save_between_two_starts_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any
) -> None:
    run = trained(tmp_path, Slowing, max_nb_steps=8, certificate=True)
    if change is not None:
        change_newest(run, lambda saved: change(saved["parts"]))
    trained(tmp_path, Slowing, certificate=True)
    status, said = verified(run, capsys)
    assert status == (change is not None), said
    assert change is None or f"global_step 0 to 8: differs: {CHANGES[change]}" in said, said
