"""One of two processes is killed: the other ends by itself, and the same program again gives the same bits."""

from pathlib import Path

import pytest

from tests.faults.killing import Result
from tests.faults.several import ended, kill_one, processes, result_of, run_to_the_end

KILLS = [
    ("ddp", 1, "update.begin:9", 2),
    ("ddp", 0, "write.synced:3", 1),
    ("fsdp", 1, "rolling.save:4", 2),
    ("fsdp", 1, "pieces.begin:3", 1),
    ("fsdp", 1, "pieces.written:4", 2),
    ("fsdp", 0, "pieces.written:3", 2),
    ("fsdp", 0, "pieces.complete:2", 1),
    ("fsdp", 0, "pieces.renamed:4", 2),
    ("fsdp", 1, "store.done:3", 2),
]
"""Strategy, who is killed, where, and how many processes go on."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run_to_the_end(tmp_path_factory.mktemp("undisturbed"), None, 1)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_end_as_one_does(tmp_path: Path, undisturbed: Result, strategy: str) -> None:
    assert run_to_the_end(tmp_path, strategy, 2) == undisturbed


@pytest.mark.parametrize(("strategy", "rank", "fault", "nb"), KILLS)
def test_a_run_of_which_one_process_was_killed_has_the_same_result(
    tmp_path: Path, undisturbed: Result, strategy: str, rank: int, fault: str, nb: int
) -> None:
    kill_one(tmp_path, strategy, rank, fault)
    assert run_to_the_end(tmp_path, strategy if nb > 1 else None, nb) == undisturbed


def test_two_then_one_then_two_processes_have_the_same_result(tmp_path: Path, undisturbed: Result) -> None:
    kill_one(tmp_path, "fsdp", 1, "update.begin:5")
    kill_one(tmp_path, "ddp", 0, "update.begin:5")
    assert run_to_the_end(tmp_path, "fsdp", 2) == undisturbed


def test_where_processes_see_other_folders_the_first_writes_one_file(tmp_path: Path) -> None:
    running = processes(tmp_path, "fsdp", 2, {}, own_disks=True)
    assert ended(running, tmp_path) == [0, 0], (tmp_path / "said-0").read_text()
    (save,) = (tmp_path / "0").glob("runs/*/version_0/checkpoints/step-*")
    assert save.is_file()
    assert not (tmp_path / "1" / "runs").exists()
    said = (tmp_path / "said-0").read_text()
    assert "not all processes see runs/Plain/version_0/checkpoints, so saves are gathered into one file" in said


def test_sharded_saves_are_written_by_both(tmp_path: Path) -> None:
    run_to_the_end(tmp_path, "fsdp", 2)
    (save,) = tmp_path.glob("*/version_0/checkpoints/step-*")
    assert sorted(path.name for path in save.iterdir()) == [
        ".metadata",
        "__0_0.distcp",
        "__1_0.distcp",
        "manifest.ckpt",
    ]
    assert (save / "__0_0.distcp").stat().st_size == pytest.approx((save / "__1_0.distcp").stat().st_size, rel=0.3)


def test_a_save_is_skipped_by_all_while_one_process_still_writes(tmp_path: Path, undisturbed: Result) -> None:
    running = processes(tmp_path, "fsdp", 2, {1: "pieces.written:2:sleep=1,store.done:2:sleep=1"})
    assert ended(running, tmp_path) == [0, 0], (tmp_path / "said-0").read_text()
    assert result_of(tmp_path) == undisturbed


def test_one_file_instead_of_shards_where_asked(tmp_path: Path, undisturbed: Result) -> None:
    running = processes(tmp_path, "fsdp", 2, {}, save_shards=False)
    assert ended(running, tmp_path) == [0, 0], (tmp_path / "said-0").read_text()
    (save,) = tmp_path.glob("*/version_0/checkpoints/step-*")
    assert save.is_file()
    assert result_of(tmp_path) == undisturbed
