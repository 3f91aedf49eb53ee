"""What warm processes run in odd surroundings. Nothing of the package is imported before it is needed."""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any


def wait_for_saves() -> None:
    """Return once no save is being written."""
    for thread in threading.enumerate():
        if thread.name == "checkpoint-writer":
            thread.join()


def train_silenced(folder: str, how: str) -> None:
    """Train with a bar and notices, while nobody takes what is printed."""
    from tests.faults.killing import CONFIGURATIONS, train

    if how == "full disk":
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, 1)
        os.dup2(full, 2)
    elif how == "reader gone":
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, 1)
        os.dup2(writing, 2)
    elif how == "closed":
        sys.stdout.close()
        sys.stderr.close()
    else:
        sys.stdout = sys.stderr = None  # type: ignore[assignment]
    options = {**CONFIGURATIONS["plain"]["options"], "progress_bar": True, "print_weights_summary": True}
    train(folder, {"options": options})


def hold(folder: str, open_file_locks: bool, forks: bool) -> None:
    """Hold the folder of a run, while anything else opens and closes the file of the lock, and perhaps a fork lives."""
    import fcntl
    import shutil

    from pytorch_lightning.checkpoints.run_store import RunStore

    if not open_file_locks:  # as on macOS
        vars(fcntl).pop("F_OFD_SETLK", None)
    store = RunStore(folder).open()
    shutil.copytree(folder, f"{folder}.backup")
    if forks and os.fork() == 0:
        time.sleep(600)
    if forks and os.fork() == 0:
        store.close()  # what a child does with it is nothing to its parent
        time.sleep(600)
    Path(folder, "held").touch()
    time.sleep(600)


def take(folder: str, open_file_locks: bool) -> None:
    """Use the same folder, at once or not at all."""
    import fcntl

    from pytorch_lightning.checkpoints.run_store import RunStore

    if not open_file_locks:
        vars(fcntl).pop("F_OFD_SETLK", None)
    RunStore(folder).open(patience=0).close()


def train_within(folder: str, name: str, how: str) -> None:
    """Train until the memory is at its end: what one batch takes is refused (``limit``), or the process is killed, with
    the signal that the kernel sends then (``kill``)."""
    import resource
    import signal

    import torch

    from tests.faults.killing import CONFIGURATIONS, train
    from tests.faults.models import Network

    class Growing(Network):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            if self.global_step == 10 and how == "limit":
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, -1))
                torch.zeros(2**30)
            elif self.global_step == 10:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().training_step(data_batch, batch_nb)

    train(folder, CONFIGURATIONS[name], Growing())


def train_hungry(folder: str, who: str, members: str | None) -> None:
    """Train in the control group whose file of ``members`` is given, until ``who`` takes all memory of it: the program
    at its tenth batch, a worker once, all workers each time, or a worker of a stream. None: there is no such group.
    Empty: nobody takes any."""
    import signal

    import torch
    from torch.utils.data import DataLoader, IterableDataset

    from tests.faults.killing import CONFIGURATIONS, train
    from tests.faults.models import BATCH_SIZE, Augmented, Network

    def eat() -> None:
        if members is None:
            os.kill(os.getpid(), signal.SIGKILL)
        held = [] if members else None
        while held is not None:
            held.append(bytearray(b"x" * 2**24))

    def is_first() -> bool:
        try:
            Path(folder, "eaten").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    class Data(Augmented):
        def __getitem__(self, index: int) -> Any:
            if index == 17 and Hungry.has_begun and members != "" and (who == "workers" or is_first()):
                eat()
            return super().__getitem__(index)

    class Stream(IterableDataset[Any]):
        def __init__(self) -> None:
            self.data = Data()

        def __iter__(self) -> Any:
            info = torch.utils.data.get_worker_info()
            return map(self.data.__getitem__, range(28, 52) if info is not None and info.id else range(28))

    class Hungry(Network):
        has_begun = False

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            wait_for_saves()
            if self.global_step == 10 and who == "program" and members != "":
                eat()
            return super().training_step(data_batch, batch_nb)

        def on_epoch_start(self) -> None:
            Hungry.has_begun = self.current_epoch == 1

        @property
        def tng_dataloader(self) -> Any:
            if who == "stream":
                return DataLoader(Stream(), BATCH_SIZE, num_workers=2)
            return DataLoader(Data(), BATCH_SIZE, shuffle=True, num_workers=0 if who == "program" else 2)

    Hungry.__name__ = "Network"
    if members:
        Path(members).write_text("0")
    train(folder, CONFIGURATIONS["plain"], Hungry())


def train_elsewhere(folder: str, name: str, temporary: str) -> None:
    """Train with another folder for temporary files, and one trial run of a batch."""
    import tempfile

    from pytorch_lightning import Trainer
    from tests.faults.killing import CONFIGURATIONS, train
    from tests.faults.models import Network

    os.environ["TMPDIR"], tempfile.tempdir = temporary, None
    trial = Trainer(fast_dev_run=True, progress_bar=False, print_weights_summary=False, silence=("not-shuffled",))
    assert trial.fit(Network()) == 1
    train(folder, CONFIGURATIONS[name])


def train_with_a_jump(folder: str, name: str, seconds: float) -> None:
    """Train while the clock of the system jumps back and forth by so many seconds. Saves are due by time."""
    import datetime

    from tests.faults.killing import train
    from tests.faults.models import Network

    real, at = time.time, [0.0]
    time.time = lambda: real() + at[0]  # type: ignore[assignment]
    time.time_ns = lambda: int(time.time() * 1e9)  # type: ignore[assignment]

    class Jumped(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return super().now(tz) + datetime.timedelta(seconds=at[0])

    datetime.datetime = Jumped  # type: ignore[misc]

    class Jumping(Network):
        def on_batch_end(self) -> None:
            wait_for_saves()
            super().on_batch_end()
            at[0] = seconds if self.global_step % 4 in (1, 2) else 0.0

    train(folder, {"options": {"save_every_nb_batches": None, "save_every_minutes": 0.001}}, Jumping())
