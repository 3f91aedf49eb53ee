"""Saves that training doesn't wait for: copied at once, written meanwhile, and never silently lost."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

from pytorch_lightning.checkpoints.run_store import RunStore
from pytorch_lightning.checkpoints.store import read_checkpoint
from pytorch_lightning.checkpoints.writer import Writer
from pytorch_lightning.errors import CheckpointError
from tests.checkpoints.saving import checkpoint_at, is_whole, save_and_leave, save_each_step
from tests.faults import warm

pytestmark = pytest.mark.skips_saves
URL = "held://bucket/checkpoints"


class HeldStorage(MemoryFileSystem):  # type: ignore[misc]
    """A remote folder where an upload begins, and ends when the test lets it; or fails."""

    protocol = "held"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    begun = threading.Event()
    free = threading.Event()
    errors: ClassVar[list[Exception]] = []
    """What the next uploads raise."""
    nb_at_once = 0

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("held://", "memory://")))

    def put_file(self, *args: Any, **kwargs: Any) -> None:
        cls = type(self)
        assert cls.nb_at_once == 0, "two saves at once"
        cls.nb_at_once += 1
        cls.begun.set()
        try:
            assert self.free.wait(60)
            if self.errors:
                raise self.errors.pop()
            super().put_file(*args, **kwargs)
        finally:
            cls.nb_at_once -= 1


@pytest.fixture
def storage() -> Iterator[type[HeldStorage]]:
    fsspec.register_implementation("held", HeldStorage, clobber=True)
    HeldStorage.store.clear()
    HeldStorage.pseudo_dirs[:] = [""]
    HeldStorage.begun.clear()
    HeldStorage.free.clear()
    HeldStorage.errors.clear()
    yield HeldStorage
    HeldStorage.free.set()


def newest(folder: Path | str) -> dict[str, Any]:
    with RunStore(folder) as store:
        found = store.newest()
        assert found is not None
        return found.checkpoint


def test_weights_that_change_while_a_save_is_written_do_not_change_the_file(storage: type[HeldStorage]) -> None:
    checkpoint = checkpoint_at(1)
    with RunStore(URL) as store:
        writer = Writer(store)
        assert writer.save(checkpoint, 1)
        for tensor in (checkpoint["state_dict"]["weight"], checkpoint["optimizer_states"][0]["state"][0]["exp_avg"]):
            tensor.fill_(-1.0)
        storage.free.set()
        writer.close()
    assert is_whole(newest(URL), 1)


def test_a_save_that_finds_one_in_flight_is_skipped_and_counted(storage: type[HeldStorage]) -> None:
    with RunStore(URL) as store:
        writer = Writer(store)
        assert writer.save(checkpoint_at(1), 1)
        assert writer.save(checkpoint_at(2), 2) is False
        assert writer.save(checkpoint_at(3), 3) is False
        assert writer.poll() is None
        storage.free.set()
        written = writer.flush()
        assert written is not None
        assert written.path == f"{URL}/step-000000000001.ckpt"
        assert writer.poll() is None  # told once
        assert writer.save(checkpoint_at(4), 4)
        writer.close()
        assert writer.nb_skipped == 2
    assert is_whole(newest(URL), 4)


def test_a_save_that_waits_comes_after_the_one_in_flight(storage: type[HeldStorage]) -> None:
    with RunStore(URL) as store:
        writer = Writer(store)
        writer.save(checkpoint_at(1), 1)
        assert storage.begun.wait(60)
        threading.Timer(0.1, storage.free.set).start()
        assert writer.save(checkpoint_at(2), 2, wait=True)
        found = store.newest()  # on the disk on return
        assert found is not None
        assert is_whole(found.checkpoint, 2)
        assert writer.nb_skipped == 0


def test_the_caller_is_notified(storage: type[HeldStorage]) -> None:
    told = threading.Event()
    with RunStore(URL) as store:
        writer = Writer(store, on_done=told.set)
        writer.save(checkpoint_at(1), 1)
        assert not told.is_set()
        storage.free.set()
        assert told.wait(60)
        assert writer.poll() is not None
        assert writer.save(checkpoint_at(2), 2)
        writer.close()


def test_a_failed_save_is_reported_and_the_third_in_a_row_raised(
    storage: type[HeldStorage], capsys: pytest.CaptureFixture[str]
) -> None:
    storage.free.set()
    storage.errors[:] = [OSError("no network")] * 3
    with RunStore(URL) as store:
        writer = Writer(store)
        for step in (1, 2):
            writer.save(checkpoint_at(step), step)
            assert writer.flush() is None
        assert capsys.readouterr().err.count("no network. Older saves are untouched. Training continues") == 2
        writer.save(checkpoint_at(3), 3)
        with pytest.raises(CheckpointError, match="no network"):
            writer.flush()


def test_a_final_save_is_tried_even_where_the_one_in_flight_fails(
    storage: type[HeldStorage], capsys: pytest.CaptureFixture[str]
) -> None:
    storage.free.set()
    storage.errors[:] = [OSError("no network")] * 3
    with RunStore(URL) as store:
        writer = Writer(store)
        for step in (1, 2):
            writer.save(checkpoint_at(step), step)
            writer.flush()
        storage.begun.clear()
        storage.free.clear()
        writer.save(checkpoint_at(3), 3)
        assert storage.begun.wait(60)
        threading.Timer(0.1, storage.free.set).start()
        writer.save(checkpoint_at(3), 3, finished=True)
        found = store.newest()
        assert found is not None
        assert found.position.finished
    assert capsys.readouterr().err.count("no network") == 3


def test_a_final_save_that_fails_is_raised_at_once(storage: type[HeldStorage]) -> None:
    storage.free.set()
    storage.errors[:] = [OSError("no network")]
    with RunStore(URL) as store, pytest.raises(CheckpointError, match="no network"):
        Writer(store).save(checkpoint_at(1), 1, finished=True)


def test_an_error_of_another_kind_is_raised_at_the_next_step(tmp_path: Path) -> None:
    ended = warm.run(
        save_each_step, str(tmp_path / "run"), 5, True, fault="writer.thread:2:raise", output=tmp_path / "said"
    )
    assert ended.code == 1
    assert "InjectedFault: injected at writer.thread" in ended.said.splitlines()[-1]
    assert "saved 2" not in ended.said


def test_a_program_that_ends_meanwhile_ends_after_the_save(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ended = warm.run(save_and_leave, str(folder), fault="writer.thread:1:sleep=0.2", output=tmp_path / "said")
    assert ended.code == 3, ended.said
    assert is_whole(newest(folder), 1)


def test_the_first_save_says_where_and_how_large_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunStore(tmp_path) as store:
        writer = Writer(store)
        for step in (1, 2):
            writer.save(checkpoint_at(step), step)
            writer.flush()
        writer.close()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{tmp_path}/step-000000000001.ckpt (0.2 MB)" in said


def test_a_file_written_by_the_thread_equals_one_written_in_the_foreground(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    optimizer = torch.optim.Adam([model.weight])
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    checkpoint = checkpoint_at(1)
    checkpoint["state_dict"] = model.state_dict()
    checkpoint["optimizer_states"] = [optimizer.state_dict()]
    paths = []
    with RunStore(tmp_path, keep=9) as store:
        writer = Writer(store)
        for step, wait in ((1, True), (2, False)):
            writer.save(checkpoint, step, wait=wait, module_state=model.state_dict())
            paths.append(tmp_path / f"step-{step:012d}.ckpt")
        writer.close()
    foreground, thread = (read_checkpoint(path) for path in paths)
    assert str(foreground) == str(thread)
    assert foreground["state_dict"]._metadata == thread["state_dict"]._metadata
    assert paths[0].stat().st_size == paths[1].stat().st_size


def test_a_save_holds_the_checksums_of_the_modules_state_not_of_what_the_user_saves(tmp_path: Path) -> None:
    from pytorch_lightning.checkpoints.snapshot import changed_tensors

    model = torch.nn.Linear(3, 2)
    with RunStore(tmp_path) as store:
        writer = Writer(store)
        writer.save(
            {**checkpoint_at(1), "state_dict": {"w": model.weight.detach()}}, 1, module_state=model.state_dict()
        )
        before = {name: value.clone() for name, value in model.state_dict().items()}
        model.bias.data += 1
        writer.close()
    checksums = newest(tmp_path)["parts"]["checksums"]
    assert changed_tensors(checksums, before) == []
    assert changed_tensors(checksums, model.state_dict()) == ["bias"]
