"""What each of several processes has in its attributes, after a cut and on another number of processes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.launchers.ranks import in_ranks

pytestmark = pytest.mark.slow

PROGRAM = """
import json, os, signal, time
import torch
from torch import nn
from pathlib import Path
from tests.launchers.nets import Net, trainer


def dim_zero_sum(x): return x.sum(0)
def dim_zero_mean(x): return x.mean(0)
def dim_zero_max(x): return x.amax(0)
def dim_zero_cat(x): return torch.cat(x)


class Metric(nn.Module):
    # what torchmetrics' metrics have
    def __init__(self):
        super().__init__()
        self._defaults, self._reductions = {}, {}
        self._update_count, self._computed = 0, None
        for name, default, reduction in (
            ("total", torch.zeros(()), dim_zero_sum), ("most", torch.zeros(()), dim_zero_max),
            ("kept", [], dim_zero_cat), ("odd", torch.zeros(()), None),
        ):
            self._defaults[name], self._reductions[name] = default, reduction
            setattr(self, name, list(default) if isinstance(default, list) else default.clone())

    def update(self, y):
        self._update_count += 1
        self.total = self.total + y.sum()
        self.most = torch.maximum(self.most, y.max())
        self.kept.append(y.flatten())
        self.odd = self.odd + y.mean()


class Counting(Net):
    def __init__(self):
        super().__init__()
        self.metric, self.seen, self.held, self.nb_epochs = Metric(), [], {}, 0

    def training_step(self, data_batch, batch_nb):
        self.seen += data_batch[1].flatten().tolist()
        self.held["seen"] = self.seen
        self.metric.update(data_batch[1])
        return super().training_step(data_batch, batch_nb)

    def on_epoch_start(self):
        self.nb_epochs += 1

    def on_batch_end(self):
        if os.environ.get("CUT") and self.global_step == int(os.environ["CUT"]) and int(os.environ["RANK"]) == 0:
            while not list(Path(".").glob("Counting/version_0/checkpoints/step-*[1-9].ckpt")):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)


rank = int(os.environ["RANK"])
model = Counting()
options = json.loads(os.environ["OPTIONS"])
one = trainer(".", **{"resume": "auto", **options})
result = one.fit(model)
if os.environ.get("AFTER"):
    one.save_checkpoint("after.ckpt")
m = model.metric
Path(f"told_{rank}.json").write_text(json.dumps({
    "result": result, "seen": model.seen, "is_one_list": model.held.get("seen") is model.seen,
    "nb_epochs": model.nb_epochs,
    "total": float(m.total), "most": float(m.most), "kept": torch.cat(m.kept).tolist() if m.kept else [],
    "odd": float(m.odd), "steps": one.global_step,
}))
"""


def told(folder: Path, nb: int, cut: str = "", after: str = "", **more: Any) -> tuple[list[dict[str, Any]], str]:
    folder.mkdir(exist_ok=True)
    for path in folder.glob("told_*"):
        path.unlink()
    options = {"virtual_ranks": 2, "save_every_nb_batches": 1, **more}
    done = in_ranks(folder, PROGRAM, nb=nb, OPTIONS=json.dumps(options), CUT=cut, AFTER=after)
    assert bool(done.returncode) == bool(cut), done.stderr
    return [json.loads(path.read_text()) for path in sorted(folder.glob("told_*"))], done.stderr


def samples() -> list[float]:
    """The targets of one epoch, from torch alone."""
    import torch

    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(1))
    return sorted(x.sum(1).tolist())


def rounded(values: list[float]) -> list[float]:
    return sorted(round(value, 4) for value in values)


def test_each_process_resumes_with_its_own(tmp_path: Path) -> None:
    whole, _ = told(tmp_path / "whole", 2)
    told(tmp_path / "cut", 2, cut="4")
    resumed, _ = told(tmp_path / "cut", 2)
    assert resumed == whole
    assert rounded(resumed[0]["seen"] + resumed[1]["seen"]) == rounded(2 * samples())
    assert all(one["is_one_list"] and one["nb_epochs"] == 2 for one in resumed)
    assert resumed[0]["seen"] != resumed[1]["seen"]


def test_fewer_processes_get_what_all_had_and_reduced_metrics(tmp_path: Path) -> None:
    told(tmp_path, 2, cut="4")
    (one,), said = told(tmp_path, 1)
    assert one["nb_epochs"] == 2, "the same in all"
    assert one["total"] == pytest.approx(2 * sum(samples()), abs=1e-3)
    assert rounded(one["kept"]) == rounded(2 * samples())
    assert one["most"] == pytest.approx(max(samples()))
    assert "the number of processes was 2 and is 1: module.held, module.seen, module.metric.odd." in said
    assert 0 < len(one["seen"]) < 40, "as the program makes it, and what came after"


def test_more_processes_have_a_metric_once(tmp_path: Path) -> None:
    told(tmp_path, 1, cut="4")
    two, _ = told(tmp_path, 2)
    assert sum(one["total"] for one in two) == pytest.approx(2 * sum(samples()), abs=1e-3)
    assert rounded(two[0]["kept"] + two[1]["kept"]) == rounded(2 * samples())
    assert max(one["most"] for one in two) == pytest.approx(max(samples()))
    assert [one["nb_epochs"] for one in two] == [2, 2]


@pytest.mark.parametrize("nb", [1, 2])
def test_a_checkpoint_that_is_written_after_the_fit_has_what_each_had(tmp_path: Path, nb: int) -> None:
    before, _ = told(tmp_path, 2, after="yes")
    more, _ = told(tmp_path, nb, resume="after.ckpt", max_nb_epochs=3)
    assert sum(one["total"] for one in more) == pytest.approx(3 * sum(samples()), abs=1e-3)
    assert [one["nb_epochs"] for one in more] == [3] * nb
    if nb == 2:
        assert [a["seen"][: len(b["seen"])] for a, b in zip(more, before, strict=True)] == [b["seen"] for b in before]
        assert rounded(more[0]["seen"] + more[1]["seen"]) == rounded(3 * samples())
