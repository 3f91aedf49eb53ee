"""Rows to a tracker of experiments, which may be slow, down or elsewhere: training never waits for it."""

import contextlib
import importlib.util
import threading
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.errors import MisconfigurationException, Notices
from pytorch_lightning.faults import fault
from pytorch_lightning.lightning2 import refuse_arguments
from pytorch_lightning.loggers.csv_logger import make_folder, remove_unused
from pytorch_lightning.loggers.journal import Journal
from pytorch_lightning.loggers.journal import TrackedRow as TrackedRow
from pytorch_lightning.loggers.journal import code_version as code_version
from pytorch_lightning.loggers.logger import Logger

FIRST_WAIT, LONGEST_WAIT, MOST_AT_ONCE = 5.0, 300.0, 500
"""Seconds between two tries to reach a tracker that is down, and rows sent at once."""


class Later(list[tuple[str, str]]):
    """Notices of a thread, until somebody hears them."""

    def say(self, code: str, text: str) -> None:
        """Report ``text``, once."""
        self.append((code, text))


class Tracker(Logger):
    """The base of loggers whose rows go to a tracker. A subclass defines ``connect``, ``send`` and ``disconnect``.

    Rows are written to ``{save_dir}/{name}/version_{n}/{kind}_rows.jsonl`` first, and sent from there by a thread. What
    couldn't be sent stays in that file, until it can. ``version=None`` takes the next free number, when the run begins.
    Raises ``TypeError`` without a ``save_dir``, and ``MisconfigurationException`` without the package that it needs.

    >>> import tempfile
    >>> arrived = []  # stands for the tracker
    >>> class OwnTracker(Tracker):
    ...     kind = "own"
    ...     def connect(self, key, unsure):
    ...         return len(arrived)
    ...     def send(self, rows):
    ...         arrived.extend(rows)
    ...     def disconnect(self): ...
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     logger = OwnTracker(folder)  # pass it as Trainer(experiment=logger)
    ...     logger.log_hyperparams({"lr": 0.1})
    ...     logger.log_metrics({"tng_loss": 0.5}, step=0)
    ...     logger.close()
    >>> arrived[0].metrics
    {'tng_loss': 0.5}
    """

    kind = "tracker"
    """How its files in the run's folder are called."""
    takes: tuple[str, ...] = ()
    """The names of its other arguments; they are in ``self.options``."""
    needs: tuple[str, str] = ("", "")
    """The package to import, and the extra that installs it."""
    starts_again = False
    """Whether what a run that was cut has sent is put aside at a resume, and sent anew."""
    takes_files = False
    """Whether ``send`` takes rows with a ``file``."""
    patience = 30.0
    """Seconds that the end of a fit waits for rows on their way."""

    def __init__(
        self, save_dir: str | Path = "", name: str = "default", version: int | str | None = None, **options: Any
    ) -> None:
        own, known = type(self).__name__, ("save_dir", "name", "version", *self.takes)
        refuse_arguments(own, "logger_arguments", {k: v for k, v in options.items() if k not in known}, known)
        if not str(save_dir):
            raise TypeError(f"{own} needs save_dir, the folder: {own}('logs')")
        package, extra = self.needs
        if package and importlib.util.find_spec(package) is None:
            raise MisconfigurationException(
                f"{own} needs {package}, which isn't installed. Install the extra [{extra}]:"
                f' pip install "pytorch-lightning-classic[{extra}]"'
            )
        self.save_dir, self.name, self._version, self.options = Path(save_dir), name, version, options
        self.notices = Notices()
        self._begin()

    def _begin(self) -> None:
        self._journal: Journal | None = None
        self._new: list[TrackedRow] = []
        self.later = Later()
        """Its ``say(code, text)`` prints a notice when the main thread logs next."""
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._is_closing = False

    def __getstate__(self) -> dict[str, Any]:
        _ = self.folder  # it is made here, so that another process's is the same
        self._write()
        if self._thread is None:
            self._journal = None  # the other process writes it now
        kept = ("_journal", "_new", "later", "_wake", "_thread", "_error", "_is_closing", "notices")
        return {name: value for name, value in vars(self).items() if name not in kept and name not in self.open_only}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.notices = Notices()
        self._begin()
        vars(self).update(state)

    open_only: tuple[str, ...] = ()
    """Attributes that are there while it is connected, and that another process can't take over."""

    # ------------------------------------------------------------------ what a subclass defines
    def prepare(self) -> None:
        """Import what is needed, in the main thread. Does nothing by default."""

    @abstractmethod
    def connect(self, key: str, unsure: Sequence[TrackedRow]) -> int | None:
        """Open the run whose own name is ``key``, or make it, with ``self.hparams``. Of the rows ``unsure`` it isn't
        known whether they arrived. Returns how many rows the tracker has; None where it can't
        tell: then ``unsure`` are sent again, which must change nothing."""

    @abstractmethod
    def send(self, rows: Sequence[TrackedRow]) -> None:
        """Send ``rows``, in their order."""

    @abstractmethod
    def disconnect(self) -> None:
        """The rows are sent, for now: end the run at the tracker. It may be connected again."""

    # ------------------------------------------------------------------ a logger
    @property
    def folder(self) -> Path:
        if self._version is None:
            self._version = make_folder(self.save_dir / self.name)
        return self.save_dir / self.name / f"version_{self._version}"

    @property
    def version(self) -> int | str | None:
        return self._version if self.folder else None

    @property
    def journal(self) -> Journal:
        """The rows that were logged, and how far they were sent."""
        if self._journal is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._journal = Journal(self.folder, self.kind)
            if self.starts_again:
                self._journal.nb_sent = self._journal.nb_tried = 0
        return self._journal

    @property
    def hparams(self) -> dict[str, Any]:
        """The hyperparameters of the run."""
        return self.journal.hparams

    def resume(self, version: int, step: int) -> None:
        with contextlib.suppress(Exception):  # of an earlier fit, which has reported it
            self.close()
        if self._version not in (None, version):
            remove_unused(self.folder)
        self._version, self._journal = version, None

    def state_dict(self) -> dict[str, Any]:
        self._write()
        return self.journal.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.close()
        journal = self.journal
        if journal.key != state["key"]:  # its files are gone, or another run's
            journal.key, journal.nb_sent, journal.nb_tried = state["key"], 0, 0
            journal.note()
        journal.load_state_dict(state)

    def log_hyperparams(self, hparams: dict[str, Any]) -> None:
        self.journal.hparams = dict(hparams)
        self.journal.note()
        self._start()

    def log_metrics(self, metrics: dict[str, float | int], step: int) -> None:
        self._new.append(TrackedRow(-1, step, time.time(), metrics))

    def log_file(self, kind: str, name: str, path: Path, step: int) -> bool:
        if self.takes_files:
            file = {"kind": kind, "name": name, "path": str(path)}
            self._new.append(TrackedRow(-1, step, time.time(), {}, file))
        return self.takes_files

    def count_rows(self) -> int:
        return self.journal.nb_logged + len(self._new)

    def save(self) -> None:
        if self._write():
            self._start()
        if self.notices.quiet:  # what is to be said waits until it is heard
            return
        if self._journal is not None and self._journal.nb_different:
            name = type(self).__name__
            text = (
                f"rows that are logged again after a resume have other numbers; {name} keeps those from before the cut"
            )
            self.later.say(f"tracker-differs-{name}", text)
        report = self.notices.say_again
        while self.later:
            report(*self.later.pop(0))
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _write(self) -> bool:
        """Write the new rows to the file. Whether there were any."""
        if not self._new:
            return False
        with self._wake:
            self.journal.append(self._new)
            self._new = []
        return True

    def close(self) -> None:
        """Send what is there, waiting ``patience`` seconds for it, and end the run at the tracker until more comes."""
        self.save()
        thread, journal = self._thread, self._journal
        if thread is None or journal is None:
            return
        with self._wake:
            self._is_closing = True
            self._wake.notify_all()
        thread.join(self.patience)
        if thread.is_alive():
            self._is_closing = False  # it goes on while the program runs
            nb = journal.nb - journal.nb_sent
            raise TimeoutError(f"{nb} rows weren't taken within {self.patience:g} s; they are kept in {journal.path}")
        self._thread, self._is_closing = None, False
        self.save()

    def send_kept(self) -> int:
        """Send the rows of this version that the tracker didn't get while it was down, and return how many there are
        still. Raises what the tracker raises."""
        journal = self.journal
        self._start()
        self.close()
        return journal.nb - journal.nb_sent

    # ------------------------------------------------------------------ the thread
    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self.prepare()
            self._thread = threading.Thread(target=self._run, args=(self.journal,), daemon=True, name=self.kind)
            self._thread.start()
        with self._wake:
            self._wake.notify_all()

    def _run(self, journal: Journal) -> None:
        is_connected, wait = False, FIRST_WAIT
        while True:
            try:
                if not is_connected:
                    self._connect(journal)
                    is_connected = True
                self._send_all(journal)
                wait = FIRST_WAIT
                with self._wake:
                    if journal.nb_sent < journal.nb:
                        continue
                    if not self._is_closing:
                        self._wake.wait()
                        continue
                self.disconnect()
                return
            except Exception as error:  # whatever it does, training continues
                self._error = error
                with self._wake:
                    if self._is_closing:
                        return
                    self._wake.wait_for(lambda: self._is_closing, wait)
                is_connected, wait = False, min(2 * wait, LONGEST_WAIT)

    def _connect(self, journal: Journal) -> None:
        with self._wake:
            unsure = journal.read(journal.nb_sent)[: journal.nb_tried - journal.nb_sent]
        nb = self.connect(journal.key, unsure)
        if nb is not None:
            journal.nb_sent, journal.nb_tried = nb, max(nb, journal.nb_tried)

    def _send_all(self, journal: Journal) -> None:
        with self._wake:
            rows = journal.read(journal.nb_sent)
        for i in range(0, len(rows), MOST_AT_ONCE):
            part = rows[i : i + MOST_AT_ONCE]
            journal.nb_tried = max(journal.nb_tried, part[-1].number + 1)
            if not self.starts_again:
                journal.note()
            fault("tracker.tried")
            self.send(part)
            fault("tracker.sent")
            journal.nb_sent = part[-1].number + 1
            if not self.starts_again:
                journal.note()
        with self._wake:
            journal.forget()
