"""``certificate.jsonl``: a line for each save, in a chain that a kill leaves whole and that no change leaves whole."""

import errno
import hashlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.checkpoints.chain import FIRST, line_of
from pytorch_lightning.errors import LightningError, MisconfigurationException
from pytorch_lightning.verify import main
from tests import certified
from tests.faults import killing, warm
from tests.faults.surroundings import wait_for_saves

PLAIN: dict[str, Any] = {
    "seed": 1, "workers": 0, "optimizer": "SGD", "schedule": "none", "noise": True,
    "options": {"save_every_nb_batches": 3},
}  # fmt: skip


def trained(folder: Path, rows: int = 1, **others: Any) -> Path:
    certified.write_rows(folder, rows)
    return certified.train(folder, PLAIN, **others)


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "certificate.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    shutil.copytree(whole, tmp_path / "Model" / "version_0")
    return tmp_path / "Model" / "version_0"


def refused(run: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main([str(run), "--module", "tests.certified", "--all"]) == 1
    out, err = capsys.readouterr()
    assert "global_step" not in out  # nothing was trained
    return err


def test_a_line_holds_the_hash_of_the_one_before_it(whole: Path) -> None:
    previous = FIRST
    for text in (whole / "certificate.jsonl").read_text().splitlines():
        line = json.loads(text)
        assert line["previous"] == previous
        previous = line["hash"]
        assert hashlib.sha256(text.replace(f', "hash": "{previous}"', "").encode()).hexdigest() == previous
    assert [line["global_step"] for line in lines_of(whole)] == [0, 3, 6, 9, 12, 15, 18, 18]
    for path in (whole / "checkpoints").glob("*.ckpt"):
        assert int(path.name[5:17]) in [line["global_step"] for line in lines_of(whole)]


def test_a_line_that_is_edited_removed_moved_or_added_is_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "certificate.jsonl"
    lines = path.read_text().splitlines()
    nb = len(lines)

    def said(*changed: str) -> str:
        path.write_text("".join(f"{line}\n" for line in changed))
        return refused(run, capsys)

    for n in range(nb):
        edited = lines[n].replace('"seed": 1', '"seed": 2')
        assert f"line {n + 1} of {path} was changed" in said(*lines[:n], edited, *lines[n + 1 :])
        removed = said(*lines[:n], *lines[n + 1 :])
        assert (f"line {n + 1} of" if n < nb - 1 else "its hash isn't that of its line") in removed
        added = said(*lines[: n + 1], lines[n], *lines[n + 1 :])
        assert f"line {n + 2} of {path} doesn't follow the line before it" in added
    for n in range(nb - 1):
        moved = said(*lines[:n], lines[n + 1], lines[n], *lines[n + 2 :])
        assert f"line {n + 1} of {path} doesn't follow the line before it" in moved
    last = json.loads(lines[-1])
    entry = {name: value for name, value in last.items() if name not in ("previous", "hash")}
    assert "the save that it names isn't there" in said(*lines, line_of({**entry, "global_step": 99}, last["hash"]))
    for lacking in ("versions", "batches", "sha256"):
        forged = line_of({name: value for name, value in entry.items() if name != lacking}, last["hash"])
        assert f"line {nb + 1} of {path} isn't one of a certificate" in said(*lines, forged)
    assert f"line {nb + 1} of {path} was changed" in said(*lines, "[" * 9000)


def test_a_save_that_was_changed_is_found_before_anything_is_trained(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted(run.glob("checkpoints/*.ckpt")):
        kept, saved = path.read_bytes(), torch.load(path, weights_only=True)
        saved["parts"]["random"]["python"] = saved["parts"]["random"]["numpy"]
        torch.save(saved, path)
        assert f"the save {path.name}: its hash isn't that of its line" in refused(run, capsys)
        path.write_bytes(kept)
    extra = run / "checkpoints" / "step-000000000007.ckpt"
    shutil.copy(path, extra)
    assert f"the save {extra.name}: there is no line of it" in refused(run, capsys)
    extra.unlink()
    torch.save({"state_dict": saved["state_dict"]}, path)
    assert f"the save {path.name}: its hash isn't that of its line" in refused(run, capsys)


POINTS = ("write.begin:3", "chain.written:5", "chain.begin:3", "write.renamed:3", "store.done:3")


@pytest.mark.parametrize("fault", [POINTS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in POINTS[1:])])
def test_a_kill_leaves_a_chain_that_the_resumed_run_continues(whole: Path, tmp_path: Path, fault: str) -> None:
    certified.write_rows(tmp_path, 1)
    ended = warm.run(killing.train_certified, str(tmp_path), PLAIN, output=tmp_path / "said", fault=fault)
    assert ended.code == -signal.SIGKILL, ended.said
    run = tmp_path / "Model" / "version_0"
    before = (run / "certificate.jsonl").read_text()
    assert trained(tmp_path) == run
    text = (run / "certificate.jsonl").read_text()
    assert text.startswith(before[: before.rfind("\n") + 1])  # lines are only added
    undisturbed = {line["global_step"]: line for line in lines_of(whole)}
    for line in lines_of(run):
        same = undisturbed[line["global_step"]]
        assert [line[name] for name in ("batches", "code", "data", "since")] == [
            same[name] for name in ("batches", "code", "data", "since")
        ]
    assert lines_of(run)[-1]["sha256"]["weights"] == undisturbed[18]["sha256"]["weights"]
    assert main([str(run), "--module", "tests.certified", "--intervals", "1"]) == 0


def test_the_batches_are_noted_whoever_fetches_them_and_a_changed_row_from_its_batch_on(
    whole: Path, tmp_path: Path
) -> None:
    noted = [line["batches"]["0"] for line in lines_of(whole)]
    described = {**PLAIN, "workers": 2}
    certified.write_rows(tmp_path, 1)
    assert [line["batches"]["0"] for line in lines_of(certified.train(tmp_path, described))] == noted
    shutil.rmtree(tmp_path / "Model")
    seen: list[Any] = []

    class Noting(certified.Model):
        def on_batch_start(self, data_batch: Any) -> None:
            seen.append(data_batch[0])

    rows = torch.load(tmp_path / "rows.pt")
    rows[7] += 1000
    torch.save(rows, tmp_path / "rows.pt")
    options = {**PLAIN["options"], "max_nb_epochs": 2, "certificate": True, "resume": "auto", "progress_bar": False}
    with killing.every_save_written():
        Trainer(**options, default_save_path=tmp_path, seed=1, nb_sanity_val_steps=0, print_weights_summary=False).fit(
            Noting(str(tmp_path), json.dumps(PLAIN))
        )
    first = next(n for n, x in enumerate(seen) if x.max() > 500)
    for line, before in zip(lines_of(tmp_path / "Noting" / "version_0"), noted, strict=True):
        indices, contents = line["batches"]["0"]
        assert indices == before[0]
        assert (contents == before[1]) == (line["global_step"] <= first)


class Failing(certified.Model):
    """Its step raises once."""

    fails = True

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.global_step == 7 and Failing.fails:
            raise ValueError("once")
        return super().training_step(data_batch, batch_nb)


def test_a_batch_that_was_fetched_and_not_trained_on_is_noted_once(whole: Path, tmp_path: Path) -> None:
    certified.write_rows(tmp_path, 1)
    options = {**PLAIN["options"], "max_nb_epochs": 2, "certificate": True, "resume": "auto", "progress_bar": False}
    options |= {"print_weights_summary": False, "default_save_path": tmp_path, "seed": 1, "nb_sanity_val_steps": 1}
    for fails in (True, False):
        Failing.fails = fails
        torch.manual_seed(1)
        try:
            with killing.every_save_written():
                Trainer(**options).fit(Failing(str(tmp_path), json.dumps(PLAIN)))
        except ValueError:
            assert fails
    lines = lines_of(tmp_path / "Failing" / "version_0")
    assert 7 in [line["global_step"] for line in lines]  # the save after the last batch that was trained on
    assert lines[-1]["batches"] == lines_of(whole)[-1]["batches"]


def test_a_part_that_was_trained_without_a_certificate_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path, max_nb_steps=6)
    trained(tmp_path, max_nb_steps=9, certificate=False)
    run = trained(tmp_path)
    assert [line["since"] for line in lines_of(run)] == [0, 0, 0, 0, 9, 9, 9, 9]
    (run / "checkpoints" / "step-000000000009.ckpt").unlink(missing_ok=True)
    assert main([str(run), "--module", "tests.certified", "--all"]) == 1
    out = capsys.readouterr().out
    assert "a start without certificate=True trained a part of it, of which nothing was noted." in out
    assert re.search(r"global_step 15 to 18: agrees", out)


def test_a_chain_that_is_not_whole_is_not_continued(run: Path) -> None:
    path = run / "certificate.jsonl"
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2', 1))
    certified.write_rows(run.parents[1], 1)
    with pytest.raises(LightningError, match=r"line 1 of .* was changed.* Put back the file as it was, or resume"):
        certified.train(run.parents[1], PLAIN, max_nb_epochs=3)


def test_a_remote_folder_is_refused(tmp_path: Path) -> None:
    certified.write_rows(tmp_path, 1)
    with pytest.raises(MisconfigurationException, match="certificate=True needs saves in files"):
        certified.train(tmp_path, PLAIN, default_save_path="memory://runs")


class Spoiling(certified.Model):
    """Does something before batch 7, and undoes it before batch 13."""

    spoil: Callable[[], object]
    mend: Callable[[], object]

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.global_step in (7, 13):
            wait_for_saves()
            (Spoiling.spoil if self.global_step == 7 else Spoiling.mend)()
        return super().training_step(data_batch, batch_nb)


Spoiling.__name__ = Spoiling.__qualname__ = "Model"


def spoiled(folder: Path, spoil: Callable[[], object], mend: Callable[[], object] = int) -> Path:
    """The folder of a run that was spoiled and mended; saves fall due each third batch."""
    Spoiling.spoil, Spoiling.mend = staticmethod(spoil), staticmethod(mend)
    certified.write_rows(folder, 1)
    options = {**PLAIN["options"], "max_nb_epochs": 2, "certificate": True, "keep_saves": "spaced", "seed": 1}
    options |= {"default_save_path": folder, "progress_bar": False, "print_weights_summary": False}
    torch.manual_seed(1)
    with killing.every_save_written():
        Trainer(**options, nb_sanity_val_steps=1, resume="auto").fit(Spoiling(str(folder), json.dumps(PLAIN)))
    return folder / "Model" / "version_0"


def test_a_disk_that_is_full_while_a_line_is_written(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, is_full, write = tmp_path / "Model/version_0/certificate.jsonl", [False], os.write

    def without_room(handle: int, data: Any) -> int:
        if is_full[0] and os.readlink(f"/proc/self/fd/{handle}") == str(path):
            if len(data) < 100:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = data[: len(data) // 2]
        return write(handle, data)

    monkeypatch.setattr(os, "write", without_room)
    run = spoiled(tmp_path, lambda: is_full.__setitem__(0, True), lambda: is_full.__setitem__(0, False))
    said = capsys.readouterr().err
    assert said.count("certificate.jsonl can't be written: No space left on device. Training continues") == 2
    steps = [line["global_step"] for line in lines_of(run)]
    assert steps == [0, 3, 6, 15, 18, 18]  # those of 9 and 12 have no line, and no save
    assert {int(p.name[5:17]) for p in run.glob("checkpoints/*.ckpt")} <= {*steps}
    assert [line["batches"] for line in lines_of(run)[3:]] == [line["batches"] for line in lines_of(whole)[5:]]
    Spoiling.spoil = Spoiling.mend = staticmethod(int)
    assert main([str(run), "--module", __name__, "--model", "Spoiling", "--all"]) == 0


@pytest.mark.parametrize("what", ["the file", "the folder of the run"])
def test_what_is_removed_while_training_is_written_anew(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    folder = tmp_path / "Model" / "version_0"
    remove = (folder / "certificate.jsonl").unlink if what == "the file" else lambda: folder.rename(tmp_path / "away")
    run = spoiled(tmp_path, remove)
    assert [line["batches"] for line in lines_of(run)] == [line["batches"] for line in lines_of(whole)]
    assert lines_of(run)[-1]["sha256"]["weights"] == lines_of(whole)[-1]["sha256"]["weights"]
    Spoiling.spoil = Spoiling.mend = staticmethod(int)
    without_options = what != "the file"
    assert main([str(run), "--module", __name__, "--model", "Spoiling", "--all"]) == without_options
    assert ("has an options.yaml, with the options of the run" in capsys.readouterr().err) == without_options


class Plain(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.layer(data_batch).pow(2).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(torch.ones(8, 2), batch_size=2)


def test_it_is_off_and_then_there_is_nothing(tmp_path: Path) -> None:
    quiet: dict[str, Any] = {"progress_bar": False, "print_weights_summary": False, "max_nb_epochs": 1, "seed": 1}
    quiet |= {"silence": ("no-validation", "not-shuffled")}
    weights = []
    for certificate in (False, True):
        torch.manual_seed(1)
        model = Plain()
        Trainer(**quiet, default_save_path=tmp_path / str(certificate), certificate=certificate).fit(model)
        weights.append(model.layer.weight.detach().clone())
    assert torch.equal(*weights)
    assert [path.parent.parent.parent.name for path in tmp_path.rglob("certificate.jsonl")] == ["True"]
    assert not list((tmp_path / "False").rglob("*.ckpt"))
    assert [line["global_step"] for line in lines_of(tmp_path / "True" / "Plain" / "version_0")] == [0, 4]
