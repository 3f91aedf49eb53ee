"""What a callback keeps of sharded weights comes back sharded, on any number of processes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.launchers.ranks import in_ranks

pytestmark = pytest.mark.slow

PROGRAM = """
import json, os
from pathlib import Path
from pytorch_lightning.callbacks import Callback
from tests.launchers.nets import Net, trainer


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


class Average(Callback):
    kept, passed, shards = None, [], None

    def on_fit_start(self, run):
        self.shards = None if self.kept is None else [hasattr(t, "placements") for t in self.kept["ema"].values()]
        if self.kept is None:
            self.kept = {"ema": {n: p.detach().clone() for n, p in self.module.named_parameters()}, "list": []}

    def on_batch_end(self, run):
        for name, p in self.module.named_parameters():
            self.kept["ema"][name].lerp_(p.detach(), 0.2)
        self.kept["list"] = [("bias", self.module.layer.bias.detach().clone())]
        self.passed.append({n: whole(p.detach()).clone().tolist() for n, p in self.module.named_parameters()})

    def state_dict(self):
        return self.kept

    def load_state_dict(self, state):
        self.kept = state


average = Average()
options = json.loads(os.environ["OPTIONS"])
one = trainer(".", distributed_backend="fsdp", virtual_ranks=2, callbacks=[average], **options)


class Saving(Net):
    def on_fit_start(self):
        self.average = {"weight": self.layer.weight.detach().clone()}

    def on_batch_end(self):
        self.average["weight"].lerp_(self.layer.weight.detach(), 0.2)

    def on_epoch_end(self):
        if self.current_epoch == 0:
            self.trainer.save_checkpoint("mid.ckpt")
        average.whole = {n: whole(t).tolist() for n, t in average.kept["ema"].items()}

average.module = model = Saving()
average.passed.append({n: p.tolist() for n, p in model.named_parameters()})
one.fit(model)
Path(f"told_{os.environ['RANK']}.json").write_text(json.dumps([average.whole, average.passed, average.shards]))
"""


def told(folder: Path, nb: int, **options: Any) -> list[Any]:
    done = in_ranks(folder, PROGRAM, nb=nb, OPTIONS=json.dumps(options))
    assert done.returncode == 0, done.stderr
    is_said = "a checkpoint can't hold it: module.average" in done.stderr
    assert is_said == (nb > 1 and options.get("resume") != "mid.ckpt"), "that a sharded attribute is lost"
    return [json.loads((folder / f"told_{rank}.json").read_text()) for rank in range(nb)]


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 2)])
def test_an_average_of_sharded_weights_resumes(tmp_path: Path, before: int, after: int) -> None:
    ((whole, passed, _), *_) = told(tmp_path, before)
    hand = {name: torch.tensor(values) for name, values in passed[0].items()}
    for weights in passed[1:]:
        for name, values in weights.items():
            hand[name] = 0.8 * hand[name] + 0.2 * torch.tensor(values)
    resumed = told(tmp_path, after, resume="mid.ckpt", experiment=False)
    for again, _, shards in resumed:
        assert shards == [after == 2] * 2, "sharded as the weights are"
        for name in hand:
            torch.testing.assert_close(torch.tensor(whole[name]), hand[name])
            torch.testing.assert_close(torch.tensor(again[name]), hand[name])


def test_it_resumes_from_shards_too(tmp_path: Path) -> None:
    ((whole, _, _), *_) = told(tmp_path, 2)
    (tmp_path / "cut").mkdir()
    told(tmp_path / "cut", 2, resume="auto", max_nb_epochs=1)
    assert list((tmp_path / "cut").glob("Saving/version_0/checkpoints/step-*.ckpt/manifest*"))
    for again, _, shards in told(tmp_path / "cut", 2, resume="auto"):
        assert shards == [True, True]
        for name, values in whole.items():
            torch.testing.assert_close(torch.tensor(again[name]), torch.tensor(values))
