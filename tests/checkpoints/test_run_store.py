"""Rolling saves: killed at any point, damaged, on a full disk, or with two runs in one folder."""

import datetime
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from pytorch_lightning.checkpoints.checkpoint import FORMAT
from pytorch_lightning.checkpoints.folders import open_folder
from pytorch_lightning.checkpoints.run_store import (
    RunStore,
    find_runs,
    folder_problem,
    newest_run,
    step_of,
    superfluous,
)
from pytorch_lightning.checkpoints.store import read_checkpoint, write_checkpoint
from pytorch_lightning.errors import CheckpointError, MisconfigurationException
from tests.checkpoints.saving import as_nobody, checkpoint_at, hold, hold_with_child, is_whole, save_each_step
from tests.faults import warm


def names(folder: Path, pattern: str = "step-*.ckpt") -> list[int]:
    return sorted(int(path.name[5:17]) for path in folder.glob(pattern))


def saved(folder: Path, *steps: int) -> None:
    with RunStore(folder) as store:
        for step in steps:
            store.write(checkpoint_at(step), step)


def newest_step(folder: Path | str) -> int | None:
    with RunStore(folder) as store:
        found = store.newest()
        assert found is None or is_whole(found.checkpoint, found.position.step)
        return None if found is None else found.position.step


# ---------------------------------------------------------------------------------------------- what is kept
def test_two_saves_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3, 40)
    assert names(tmp_path) == [3, 40]
    assert newest_step(tmp_path) == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        "step-000000000003.ckpt",
        "step-000000000040.ckpt",
    ]


def test_never_fewer_than_two_saves_are_kept_by_choice_more(tmp_path: Path) -> None:
    for keep, kept in ((0, [3, 4]), (3, [2, 3, 4])):
        with RunStore(tmp_path / str(keep), keep=keep) as store:
            for step in (1, 2, 3, 4):
                store.write(checkpoint_at(step), step)
        assert names(tmp_path / str(keep)) == kept


@pytest.mark.parametrize("seed", range(5))
def test_spaced_saves_are_few_and_near_every_batch(seed: int) -> None:
    """Simulated: saves at irregular steps, after kills that lose the newest ones."""
    draw = random.Random(seed)
    step, furthest, written, live = 0, 0, [0], [0]
    for _ in range(600):
        if draw.random() < 0.02 and len(live) > 2:  # a resume from the one before
            live = live[1:]
            written = [each for each in written if each <= live[0]]
            step = live[0]
        step += draw.choice([1, 1, 5, 40])
        furthest = max(furthest, step)
        written.append(step)
        names = [f"step-{each:012d}.ckpt" for each in [step, *live]]
        gone = superfluous(names, None, False)
        live = [step_of(name) for name in names if name not in gone]
        assert live[:2] == written[:-3:-1]
        assert live[-1] == 0
        assert len(live) <= 2 * math.log2(step + 2) + 3
        for before in draw.sample(written, min(20, len(written))):
            nearest = max(each for each in live if each <= before)
            assert before - nearest <= furthest - before or nearest == max(each for each in written if each <= before)


def test_spaced_saves_stay_at_the_end_and_after_kills_too(tmp_path: Path) -> None:
    for begin in range(0, 32, 8):  # each start is a store of its own
        with RunStore(tmp_path, keep=None) as store:
            store.begin(begin - 1 if begin else None)
            for step in range(begin, begin + 8):
                store.write(checkpoint_at(step), step, finished=step == 31)
    kept = names(tmp_path)
    assert (kept[0], kept[-2:]) == (0, [30, 31])
    assert len(kept) <= 13
    assert all(any(step - (31 - step) <= each <= step for each in kept) for step in range(16, 31))


def test_an_empty_folder_has_no_save(tmp_path: Path) -> None:
    assert newest_step(tmp_path / "new") is None


def test_a_final_save_replaces_the_others_and_says_that_it_is_final(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    (tmp_path / "step-000000000001.ckpt").rename(tmp_path / "step-000000000001.ckpt.damaged")
    with RunStore(tmp_path) as store:
        store.write(checkpoint_at(3), 3, finished=True)
    assert names(tmp_path, "step-*") == [3]
    with RunStore(tmp_path) as store:
        found = store.newest()
        assert found is not None
        assert found.position.finished


def test_a_run_keeps_its_id_over_restarts_and_its_job(tmp_path: Path) -> None:
    with RunStore(tmp_path, job="slurm 7") as store:
        first = store.run_id
        store.write(checkpoint_at(1), 1)
    with RunStore(tmp_path) as store:
        assert store.run_id != first
        found = store.newest()
        assert found is not None
        assert (store.run_id, found.position.run_id, found.position.job) == (first, first, "slurm 7")


def test_order_is_by_step_whatever_the_clock_says(tmp_path: Path) -> None:
    saved(tmp_path, 9, 10)
    os.utime(tmp_path / "step-000000000010.ckpt", (0, 0))
    assert newest_step(tmp_path) == 10
    saved(tmp_path, 11)
    assert names(tmp_path) == [10, 11]


def test_a_step_of_more_than_twelve_digits_is_the_newest(tmp_path: Path) -> None:
    saved(tmp_path, 999_999_999_999, 1_000_000_000_000)
    assert newest_step(tmp_path) == 1_000_000_000_000


def test_a_run_that_starts_anew_sets_the_saves_of_another_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, 50, 60)
    with RunStore(tmp_path) as store:
        store.begin(None)
        store.write(checkpoint_at(1), 1)
    assert names(tmp_path) == [1]
    assert names(tmp_path, "*.aside") == [50, 60]
    assert newest_step(tmp_path) == 1
    assert "2 saves that this run doesn't resume from" in capsys.readouterr().err


def test_saves_past_the_step_that_a_run_resumes_from_are_set_aside(tmp_path: Path) -> None:
    saved(tmp_path, 50, 60)
    with RunStore(tmp_path) as store:
        store.begin(50)
    assert names(tmp_path) == [50]


# ---------------------------------------------------------------------------------------------- kills
BEFORE_THE_RENAME = ["write.begin", "write.written", "write.synced"]
AFTER_THE_RENAME = ["write.renamed", "write.durable", "store.done"]


@pytest.mark.parametrize("in_thread", [False, True], ids=["foreground", "thread"])
@pytest.mark.parametrize("visit", [1, 4])
@pytest.mark.parametrize("point", [*BEFORE_THE_RENAME, *AFTER_THE_RENAME])
def test_a_kill_at_any_point_of_a_save_leaves_the_newest_whole(
    tmp_path: Path, point: str, visit: int, in_thread: bool
) -> None:
    killed_at(tmp_path, f"{point}:{visit}", visit - (point in BEFORE_THE_RENAME), in_thread)


@pytest.mark.parametrize("point", ["writer.copy", "writer.copied", "writer.thread"])
def test_a_kill_around_the_copy_leaves_the_newest_whole(tmp_path: Path, point: str) -> None:
    killed_at(tmp_path, f"{point}:3", 2, in_thread=True)


def test_a_kill_while_old_saves_are_removed_leaves_the_newest_whole(tmp_path: Path) -> None:
    killed_at(tmp_path, "store.prune:1", 3)
    assert names(tmp_path / "run") == [5, 6]  # what was left over is removed by the next


@pytest.mark.parametrize("size", [0, 1, 70_000, 160_300])
def test_a_death_while_bytes_are_written_leaves_the_newest_whole(tmp_path: Path, size: int) -> None:
    killed_at(tmp_path, f"write.begin:4:cut={size}", 3, code=-signal.SIGXFSZ)


def killed_at(tmp_path: Path, fault: str, newest: int, in_thread: bool = False, code: int = -signal.SIGKILL) -> None:
    """Kill a run at ``fault``, look at its newest save, let it go on, and look again."""
    folder = tmp_path / "run"
    ended = warm.run(save_each_step, str(folder), 6, in_thread, fault=fault, output=tmp_path / "said")
    assert ended.code == code, ended.said
    nb_saves = len(names(folder))
    assert newest_step(folder) == (newest or None)
    assert nb_saves >= min(2, newest)
    assert not list(folder.glob(".*.tmp"))
    ended = warm.run(save_each_step, str(folder), 6, in_thread, output=tmp_path / "said")
    assert ended.code == 0, ended.said
    assert f"goes on from {newest or None}" in ended.said
    assert newest_step(folder) == 6


def test_a_kill_while_the_final_save_replaces_the_others_leaves_it(tmp_path: Path) -> None:
    ended = warm.run(
        save_each_step, str(tmp_path / "run"), 2, finish=True, fault="store.replace:1", output=tmp_path / "said"
    )
    assert ended.code == -signal.SIGKILL
    with RunStore(tmp_path / "run") as store:
        found = store.newest()
        assert found is not None
        assert (found.position.step, found.position.finished) == (2, True)


def test_temporary_files_of_dead_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    tmp_path.joinpath(".step-000000000001.ckpt.1.tmp").write_text("of a dead process whose number lives again")
    others = {".best.ckpt.1.tmp", "step-1.ckpt", "notes.txt"}
    for name in others:
        tmp_path.joinpath(name).write_text("x")
    assert newest_step(tmp_path) is None
    assert {path.name for path in tmp_path.iterdir()} == others | {".lock"}


# ---------------------------------------------------------------------------------------------- damage
def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def zero_a_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(bytes(4096))


DAMAGES = [truncate, flip_a_bit, zero_a_page, lambda p: p.write_bytes(b""), lambda p: p.write_text("text" * 1000)]


@pytest.mark.parametrize("damage", DAMAGES, ids=["truncated", "flipped bit", "zeroed page", "empty", "text"])
def test_a_damaged_newest_save_is_set_aside_and_the_one_before_it_taken(
    tmp_path: Path, damage: Callable[[Path], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, 3, 4)
    damage(tmp_path / "step-000000000004.ckpt")
    assert newest_step(tmp_path) == 3
    assert names(tmp_path, "*.damaged") == [4]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "step-000000000004.ckpt" in said
    assert "step-000000000003.ckpt is the newest good save" in said
    saved(tmp_path, 4, 5)
    assert newest_step(tmp_path) == 5


def test_damage_of_every_save_is_an_error_now_and_at_the_next_start(tmp_path: Path) -> None:
    saved(tmp_path, 3, 4)
    for step in (3, 4):
        flip_a_bit(tmp_path / f"step-{step:012d}.ckpt")
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"step-000000000003.ckpt.*step-000000000004.ckpt.*start anew"):
            newest_step(tmp_path)


def test_no_flipped_bit_anywhere_in_a_file_is_read_as_another_value(tmp_path: Path) -> None:
    """A bit that isn't noticed is one that nothing is read from."""
    path = write_checkpoint({**checkpoint_at(7, nb_values=50), "text": "abc"}, tmp_path / "x.ckpt")
    whole = path.read_bytes()
    expected = read_checkpoint(path)
    draw = random.Random(0)
    noticed = 0
    for place in draw.sample(range(len(whole)), 400):
        content = bytearray(whole)
        content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(bytes(content))
        try:
            found = read_checkpoint(path)
        except CheckpointError:
            noticed += 1
        else:
            assert str(found) == str(expected)
    assert noticed > 100


def test_a_final_save_that_the_disk_garbles_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = os.fsync

    def garble(handle: int) -> None:
        flush(handle)
        for path in tmp_path.glob(".step-*.tmp"):
            flip_a_bit(path)

    with RunStore(tmp_path) as store:
        store.write(checkpoint_at(1), 1)
        store.write(checkpoint_at(2), 2)
        monkeypatch.setattr(os, "fsync", garble)
        with pytest.raises(CheckpointError, match=r"step-000000000003\.ckpt is damaged"):
            store.write(checkpoint_at(3), 3, finished=True)
    assert newest_step(tmp_path) == 2


def test_a_save_of_a_newer_version_is_an_error_and_stays(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    write_checkpoint({**checkpoint_at(4), "format": FORMAT + 1}, tmp_path / "step-000000000004.ckpt")
    with pytest.raises(CheckpointError, match="Upgrade"):
        newest_step(tmp_path)
    assert names(tmp_path) == [3, 4]


def test_a_save_with_code_in_it_is_an_error_and_stays(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    torch.save({**checkpoint_at(4), "code": print}, tmp_path / "step-000000000004.ckpt")
    with pytest.raises(CheckpointError, match="more than plain data"):
        newest_step(tmp_path)
    assert names(tmp_path) == [3, 4]


def test_saves_have_checksums_also_where_a_script_turned_them_off(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        saved(tmp_path, 1)
        assert torch.serialization.get_crc32_options() is False
    finally:
        torch.serialization.set_crc32_options(True)
    assert newest_step(tmp_path) == 1


# ---------------------------------------------------------------------------------------------- the folder
def test_a_second_run_in_a_folder_is_refused_with_the_holders_name(tmp_path: Path) -> None:
    process, line = holder(hold, tmp_path)
    try:
        with pytest.raises(CheckpointError) as error:
            RunStore(tmp_path).open(patience=0)
        for part in (f"process {process.pid}", socket.gethostname(), str(datetime.datetime.now().year)):
            assert part in str(error.value)
    finally:
        process.kill()
    # what a killed process held is free at once
    assert newest_step(tmp_path) is None
    process.join()
    line.close()


def holder(target: Callable[..., None], tmp_path: Path) -> tuple[Any, Any]:
    """A process that keeps the folder until its line is closed."""
    line, its_end = multiprocessing.Pipe()
    process = warm.started(target, str(tmp_path), its_end, output=tmp_path / "said")
    its_end.close()
    assert line.recv() == "held"
    return process, line


def test_two_fits_of_one_process_cannot_share_a_folder(tmp_path: Path) -> None:
    with RunStore(tmp_path), pytest.raises(CheckpointError, match="another fit of this process"):
        RunStore(tmp_path / ".." / tmp_path.name).open()
    assert newest_step(tmp_path) is None


def test_a_forked_child_does_not_keep_the_folder(tmp_path: Path) -> None:
    """Loader workers outlive a killed process for seconds."""
    process, line = holder(hold_with_child, tmp_path)
    process.kill()
    process.join()
    assert newest_step(tmp_path) is None
    assert not line.poll()  # the child lives
    line.close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        problem = folder_problem(folder)
        assert problem is not None
        assert str(folder) in str(problem)
        with pytest.raises(MisconfigurationException, match="can't be written to"):
            RunStore(folder).open()


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    ended = warm.run(as_nobody, str(folder), output=tmp_path / "said")
    assert ended.code == 0, ended.said
    assert f"checkpoints can't be written to {folder}" in ended.said


def test_looking_at_a_folder_leaves_nothing_in_it(tmp_path: Path) -> None:
    assert folder_problem(tmp_path / "new") is None
    assert folder_problem(tmp_path) is None
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------- finding runs
def test_the_newest_run_with_saves_is_found_with_its_position(tmp_path: Path) -> None:
    for version, step in ((2, 30), (10, 7)):
        saved(tmp_path / f"Net/version_{version}/checkpoints", step)
    (tmp_path / "Net/version_11").mkdir()
    (tmp_path / "Net/version_x").mkdir()
    found = newest_run(tmp_path, "Net")
    assert found is not None
    assert (found.folder, found.version) == (str(tmp_path / "Net/version_10"), 10)
    assert found.position is not None
    assert found.position[:4] == (7, 1, 3, False)
    assert [(run.version, run.has_saves) for run in find_runs(tmp_path, "Net")] == [(11, False), (10, True), (2, True)]
    assert newest_run(tmp_path, "Other") is None


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts what was read as Linux does")
def test_a_look_at_a_run_does_not_read_its_tensors(tmp_path: Path) -> None:
    def nb_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    with RunStore(tmp_path / "Net/version_0/checkpoints") as store:
        store.write(checkpoint_at(1, nb_values=1_000_000), 1)
    before = nb_read()
    found = newest_run(tmp_path, "Net")
    assert found is not None
    assert found.position is not None
    assert nb_read() - before < 1_000_000


def test_a_look_at_a_run_passes_over_what_it_cannot_read_and_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "Net/version_0/checkpoints"
    saved(folder, 1, 2)
    truncate(folder / "step-000000000002.ckpt")
    found = newest_run(tmp_path, "Net")
    assert found is not None
    assert found.position is not None
    assert found.position.step == 1
    assert names(folder) == [1, 2]


def test_a_run_whose_saves_are_all_damaged_is_not_passed_over(tmp_path: Path) -> None:
    saved(tmp_path / "Net/version_0/checkpoints", 1)
    saved(tmp_path / "Net/version_1/checkpoints", 1)
    path = tmp_path / "Net/version_1/checkpoints/step-000000000001.ckpt"
    path.rename(f"{path}.damaged")
    found = newest_run(tmp_path, "Net")
    assert found is not None
    assert (found.version, found.position) == (1, None)


# ---------------------------------------------------------------------------------------------- remote folders
@pytest.fixture
def url() -> Any:
    """A remote folder, empty, in this process's memory."""
    system = fsspec.filesystem("memory")
    yield "memory://bucket/Net/version_3/checkpoints"
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def remote_files(url: str) -> list[str]:
    return sorted(path.rsplit("/", 1)[-1] for path in fsspec.filesystem("memory").ls(url, detail=False))


def remote_saved(url: str, *steps: int) -> None:
    with RunStore(url) as store:
        for step in steps:
            store.write(checkpoint_at(step), step)


def test_a_remote_folder_keeps_two_saves_and_a_final_one(url: str) -> None:
    assert newest_step(url) is None
    remote_saved(url, 1, 2, 3)
    assert [name.split(".")[0][-1] for name in remote_files(url)] == ["2", "2", "3", "3"]
    assert newest_step(url) == 3
    found = newest_run("memory://bucket", "Net")
    assert found is not None
    assert found.position is not None
    assert (found.version, found.position.step, found.position.finished) == (3, 3, False)
    with RunStore(url) as store:
        store.write(checkpoint_at(3), 3, finished=True)
    assert len(remote_files(url)) == 2
    with RunStore(url) as store:
        newest = store.newest()
        assert newest is not None
        assert newest.position.finished


def test_a_remote_save_without_its_manifest_is_none(url: str) -> None:
    """Data goes first: a run that dies before the manifest leaves the save before it as the newest."""
    remote_saved(url, 1, 2)
    fsspec.filesystem("memory").rm_file(f"{url}/step-000000000002.ckpt.json")
    assert newest_step(url) == 1
    assert len(remote_files(url)) == 2  # and what it left is removed


def test_the_manifest_goes_last(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    system = fsspec.filesystem("memory")
    for method in ("put_file", "pipe_file"):
        own = getattr(type(system), method)
        monkeypatch.setattr(type(system), method, lambda *a, own=own, m=method, **k: (order.append(m), own(*a, **k))[1])
    with RunStore(url) as store:
        order.clear()
        store.write(checkpoint_at(1), 1)
    assert order == ["put_file", "pipe_file"]


@pytest.mark.parametrize("damage", ["size", "bits", "missing", "manifest"])
def test_a_damaged_remote_save_is_set_aside(url: str, damage: str) -> None:
    remote_saved(url, 1, 2)
    system = fsspec.filesystem("memory")
    manifest = f"{url}/step-000000000002.ckpt.json"
    data = f"{url}/{json.loads(system.cat_file(manifest))['data']}"
    content = bytearray(system.cat_file(data))
    if damage == "missing":
        system.rm_file(data)
    elif damage == "manifest":
        system.pipe_file(manifest, b"{")
    elif damage == "size":
        system.pipe_file(data, bytes(content[:1000]))
    else:
        content[len(content) // 2] ^= 1
        system.pipe_file(data, bytes(content))
    found = newest_run("memory://bucket", "Net")
    assert found is not None
    assert found.position is not None
    assert found.position.step == (2 if damage == "bits" else 1)  # a look doesn't read the data
    assert newest_step(url) == 1
    assert "step-000000000002.ckpt.damaged.json" in remote_files(url)


def test_a_remote_folder_that_cannot_be_written_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("no access")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "pipe_file", refuse)
    assert "no access" in str(folder_problem(url))


# ---------------------------------------------------------------------------------------------- a full disk
def test_a_periodic_save_on_a_full_disk_is_one_line_and_the_next_tries_again(tmp_path: Path) -> None:
    fault = "write.begin:3:full=100000,write.begin:4:free"
    ended = warm.run(save_each_step, str(tmp_path / "run"), 4, True, fault=fault, output=tmp_path / "said")
    assert ended.code == 0, ended.said
    lines = [line for line in ended.said.splitlines() if "can't be written" in line]
    assert len(lines) == 1
    for part in ("step-000000000003.ckpt", "The disk is full", "Training continues"):
        assert part in lines[0]
    assert names(tmp_path / "run") == [2, 4]
    assert newest_step(tmp_path / "run") == 4


def test_failures_that_are_not_in_a_row_are_survived(tmp_path: Path) -> None:
    fault = ",".join(f"write.begin:{n}:{'full=100000' if n % 2 else 'free'}" for n in range(1, 9))
    ended = warm.run(save_each_step, str(tmp_path / "run"), 8, True, fault=fault, output=tmp_path / "said")
    assert ended.code == 0, ended.said
    assert names(tmp_path / "run") == [6, 8]


def test_the_third_failure_in_a_row_is_raised_and_old_saves_stay(tmp_path: Path) -> None:
    fault = "write.begin:3:full=100000"
    ended = warm.run(save_each_step, str(tmp_path / "run"), 9, True, fault=fault, output=tmp_path / "said")
    assert ended.code == 1
    assert "saved 4" in ended.said
    assert "saved 5" not in ended.said
    assert "CheckpointError" in ended.said.splitlines()[-1]
    assert names(tmp_path / "run") == [1, 2]
    assert newest_step(tmp_path / "run") == 2


def test_a_final_save_on_a_full_disk_is_raised_and_old_saves_stay(tmp_path: Path) -> None:
    fault = "write.begin:3:full=100000"
    ended = warm.run(save_each_step, str(tmp_path / "run"), 2, True, True, fault=fault, output=tmp_path / "said")
    assert ended.code == 1
    assert "The disk is full" in ended.said.splitlines()[-1]
    assert names(tmp_path / "run") == [1, 2]
    with RunStore(tmp_path / "run") as store:
        found = store.newest()
        assert found is not None
        assert (found.position.step, found.position.finished) == (2, False)


def test_a_save_that_will_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=150_000)
    with RunStore(tmp_path) as store:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(CheckpointError, match=r"needs 0.2 MB and 0.1 MB are free"):
            store.write(checkpoint_at(1), 1)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


HOSTILE = {
    "another folder": {"data": "../../x", "size": 1, "checkpoint": {}},
    "an absolute path": {"data": "/bucket/x.00000000.data", "size": 1, "checkpoint": {}},
    "another save": {"data": "step-000000000009.ckpt.00000000.data", "size": 1, "checkpoint": {}},
    "no text": {"data": ["x"], "size": 1, "checkpoint": {}},
    "no size": {"data": "step-000000000001.ckpt.00000000.data", "size": "1", "checkpoint": {}},
    "no checkpoint": {"data": "step-000000000001.ckpt.00000000.data", "size": 1, "checkpoint": [1]},
    "a list": [1, 2],
}


@pytest.mark.parametrize("manifest", [*HOSTILE.values(), "deep", "large"], ids=[*HOSTILE, "deep", "large"])
def test_a_remote_manifest_names_nothing_but_its_own_data(url: str, manifest: Any) -> None:
    """It is neither read nor removed, whatever the manifest names."""

    remote_saved(url, 1)
    system, path = fsspec.core.url_to_fs(url)
    name = "step-000000000001.ckpt"
    others = [f"{path}/step-000000000009.ckpt.00000000.data", "/bucket/x", "/bucket/Net/x", "/bucket/x.00000000.data"]
    for other in others:
        system.pipe_file(other, b"x")
    text = {"deep": "[" * 100_000, "large": " " * 3_000_000}.get(manifest) if isinstance(manifest, str) else None
    system.pipe_file(f"{path}/{name}.json", (text or json.dumps(manifest)).encode())
    folder = open_folder(url)
    for look in (folder.read, folder.peek, folder.verify):
        with pytest.raises(CheckpointError, match=f"{name} is damaged") as caught:
            look(name)
        assert "\n" not in str(caught.value)
    folder.remove(name)
    assert all(map(system.exists, others))
    assert not system.exists(f"{path}/{name}.json")


def test_data_of_a_damaged_manifest_is_kept_and_data_without_one_goes(url: str) -> None:

    remote_saved(url, 1)
    system, path = fsspec.core.url_to_fs(url)
    (data,) = [name for name in remote_files(url) if name.endswith(".data")]
    system.pipe_file(f"{path}/step-000000000001.ckpt.json", b"{")
    system.pipe_file(f"{path}/step-000000000007.ckpt.0123abcd.data", b"x")
    open_folder(url).lock(0.0)
    assert data in remote_files(url)
    assert "step-000000000007.ckpt.0123abcd.data" not in remote_files(url)
