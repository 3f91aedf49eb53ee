"""The bar, as it stands in a terminal of its own, in a file, and through a resume."""

import fcntl
import io
import logging
import os
import re
import struct
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyte
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.callbacks import progress_bar as bar_module
from pytorch_lightning.callbacks.bar_terminal import TerminalBar
from tests.recorder import Recorder, quiet_trainer

ROWS, END = 40, b"\x00"


class Terminal:
    """A terminal: what is written to it, and what then stands in it."""

    def __init__(self, columns: int) -> None:
        self.screen = pyte.Screen(columns, ROWS)
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        self.resize(columns)
        self.raw = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def use(self) -> None:
        """From here on stdout and stderr are this terminal."""

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))

    def stream(self) -> Any:
        return open(os.dup(self.slave), "w", buffering=1)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # the other end is closed
                return
            if not data:
                return
            self.raw += data

    def close(self) -> None:
        os.close(self.slave)
        self._reader.join(10)
        os.close(self.master)

    def lines(self, upto: int | None = None) -> list[str]:
        """What stands there, once ``upto`` bytes were written."""
        screen = pyte.Screen(self.screen.columns, ROWS)
        pyte.Stream(screen).feed(self.raw[:upto].decode().replace("\n", "\r\n"))
        return [line.rstrip() for line in screen.display if line.strip()]


@pytest.fixture(params=[80])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    there = Terminal(request.param)
    out, err = there.stream(), there.stream()

    def use() -> None:  # in the test itself: pytest puts its own streams there when that begins
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)

    there.use = use  # type: ignore[method-assign]
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(TerminalBar, "draw_seconds", 0.0)
    yield there
    monkeypatch.undo()
    out.close()
    err.close()
    there.close()


def seen(terminal: Terminal) -> list[str]:
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(terminal.slave, END)  # behind all that was written
    for _ in range(1000):
        if terminal.raw.endswith(END):
            break
        threading.Event().wait(0.01)
    terminal.raw = terminal.raw.removesuffix(END)
    return terminal.lines()


class Net(LightningModule):
    """A classifier with the numbers that one looks at."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(20, 3)

    def both(self, batch: Any) -> Any:
        out = self.layer(batch[0])
        return torch.nn.functional.cross_entropy(out, batch[1]), (out.argmax(1) == batch[1]).float().mean()

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        loss, acc = self.both(data_batch)
        return {"loss": loss, "prog": {"tng_acc": acc}}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        loss, acc = self.both(data_batch)
        return {"val_loss": loss, "val_acc": acc}

    def validation_end(self, outputs: Any) -> Any:
        return {k: torch.stack([o[k] for o in outputs]).mean() for k in outputs[0]}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)

    def loader(self) -> Any:
        x = torch.randn(200, 20, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=16)

    tng_dataloader = val_dataloader = property(loader)


class Printing(Net):
    """Says something at several batches, in all ways there are."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        from tqdm import tqdm

        says = {
            1: lambda: print("two\nlines"),
            2: lambda: print("begun ", end=""),
            4: lambda: print("and ended"),
            5: lambda: print("to stderr", file=sys.stderr),
            6: lambda: logging.getLogger("own").warning("from logging"),
            7: lambda: tqdm.write("by tqdm.write"),
            8: lambda: [None for _ in tqdm(range(3), desc="own bar", leave=False)],
        }
        says.get(batch_nb, lambda: None)()
        return super().training_step(data_batch, batch_nb)

    def on_epoch_end(self) -> None:
        print("hello from a hook")


@pytest.mark.parametrize("terminal", [60, 80, 120], indirect=True)
def test_the_numbers_stay_in_view_and_prints_come_above_them_whole(tmp_path: Path, terminal: Terminal) -> None:
    terminal.use()
    handler, logger = logging.StreamHandler(), logging.getLogger("own")  # it has the stream of before the fit
    logger.addHandler(handler)
    before = sys.stdout, sys.stderr, handler.stream
    try:
        trainer = quiet_trainer(tmp_path, progress_bar=True, max_nb_epochs=2)
        trainer.fit(Printing())
    finally:
        logger.removeHandler(handler)
    lines = seen(terminal)
    assert (sys.stdout, sys.stderr, handler.stream) == before
    said = ["two", "lines", "begun and ended", "to stderr", "from logging", "by tqdm.write", "hello from a hook"]
    (of_1, of_2) = [line for line in lines if line.startswith("epoch")]
    assert lines == [*said, of_1, *said, of_2]
    width = terminal.screen.columns
    assert all(len(line) < width for line in lines)
    numbers = trainer.tqdm_metrics
    digits = 3 if width == 60 else 4
    for name in ("tng_acc", "val_loss", "val_acc"):
        assert f"={numbers[name]:#.{digits}g}" in of_2, (name, of_2)
    if width == 120:
        assert re.fullmatch(
            r"epoch 2: 13/13 mean_loss=\S+ tng_acc=\S+ val_loss=\S+ val_acc=\S+ \[00:\d\d, \S+ samples/s, v_nb=0\]",
            of_2,
        )


@pytest.mark.parametrize("terminal", [60, 80, 120], indirect=True)
def test_while_it_runs_the_line_has_all_numbers_before_times_and_rates(tmp_path: Path, terminal: Terminal) -> None:
    terminal.use()
    quiet_trainer(tmp_path, progress_bar=True, max_nb_epochs=2).fit(Net())
    seen(terminal)
    drawn = [text for text in re.split(r"\r|\x1b\[K|\n", terminal.raw.decode()) if text.startswith("epoch 2:")]
    assert len(drawn) > 13
    for text in drawn:
        assert len(text) < terminal.screen.columns
        assert re.search(r"/13 t\w*=\S+ t\w*=\S+ v\w*=\S+ v\w*=\S+|13/13 m", text), text
        assert "v_nb" not in text or text.endswith("v_nb=0]")
    assert any("<00:" in text for text in drawn) == (terminal.screen.columns > 60)
    assert any("samples/s" in text for text in drawn) == (terminal.screen.columns > 80)


def test_it_follows_the_width_and_leaves_nothing_where_lines_are_broken_anew(
    tmp_path: Path, terminal: Terminal
) -> None:
    terminal.use()

    class Resizing(Net):
        def on_batch_end(self) -> None:
            if self.trainer.batch_nb == 5:
                terminal.resize(50)

    terminal.resize(100)
    quiet_trainer(tmp_path, progress_bar=True).fit(Resizing())
    seen(terminal)
    text = terminal.raw.decode()
    before, after = text.split("\x1b[1A\r", 1)  # one line up: the line of before takes two now
    assert max(map(len, re.split(r"\r|\x1b\[K|\n", before))) > 50
    assert after.index("\x1b[J") < 50
    assert max(map(len, re.split(r"\r|\x1b\[[KJ]|\n", after))) < 50


class Noting(Net):
    """Keeps what each step returned, apart from the library."""

    noted: dict[int, list[float]] = {}
    counts = False

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        output = super().training_step(data_batch, batch_nb)
        if self.counts:
            output["loss_count"] = 1 + batch_nb % 3
        self.noted.setdefault(self.current_epoch, []).append(output["loss"].item())
        return output


def mean_in(lines: list[str], epoch: int) -> str:
    (line,) = [line for line in lines if line.startswith(f"epoch {epoch}: 13/13")]
    (mean,) = re.findall(r"mean_loss=(\S+)", line)
    return mean


@pytest.mark.parametrize("cut", [None, 1, 7, 13, 20])
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("counts", [False, True], ids=["plain", "loss_count"])
def test_an_epochs_line_says_its_mean_loss_also_through_a_resume(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    cut: int | None,
    ranks: int,
    counts: bool,
) -> None:
    """Of the losses that ``training_step`` returned, added by hand."""
    monkeypatch.setattr(Noting, "noted", {})
    monkeypatch.setattr(Noting, "counts", counts)
    nb_rounds = 13 if ranks == 1 else 7
    options: Any = {"progress_bar": True, "max_nb_epochs": 2, "virtual_ranks": ranks, "add_log_row_interval": 3}
    torch.manual_seed(0)
    if cut is not None and cut < 2 * nb_rounds:
        first = quiet_trainer(tmp_path, **options, max_nb_steps=cut)
        first.fit(Noting())
        first.save_checkpoint(tmp_path / "x.ckpt")
        options["resume"] = tmp_path / "x.ckpt"
    quiet_trainer(tmp_path, **options).fit(Noting())
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    for epoch in (0, 1):
        losses = Noting.noted[epoch]
        assert len(losses) == 13
        weights = [1 + (i // ranks) % 3 if counts else 1 for i in range(13)]
        mean = sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights)
        whole = [line for line in lines if line.startswith(f"epoch {epoch + 1}: {nb_rounds}/{nb_rounds}")]
        (said,) = re.findall(r"mean_loss=(\S+)", " ".join(whole))
        assert float(said) == pytest.approx(mean, abs=1e-3 * abs(mean))
        unit = "item" if counts else "sample"
        assert f"{unit}s/s" in whole[-1] or f" s/{unit}" in whole[-1]  # of a slow machine


def test_the_mean_is_the_same_to_the_last_bit_wherever_an_epoch_is_cut(tmp_path: Path) -> None:
    class Kept(Callback):
        def on_epoch_end(self, run: Any) -> None:
            means.append(run.metrics.epoch_loss)

    means: list[float] = []
    options: Any = {"callbacks": [Kept()], "add_log_row_interval": 4}
    torch.manual_seed(0)
    quiet_trainer(tmp_path, **options).fit(Net())
    for cut in range(1, 13):
        torch.manual_seed(0)
        first = quiet_trainer(tmp_path, **options, max_nb_steps=cut)
        first.fit(Net())
        first.save_checkpoint(tmp_path / "x.ckpt")
        quiet_trainer(tmp_path, **options, resume=tmp_path / "x.ckpt").fit(Net())
    assert len(means) == 13
    assert len(set(means)) == 1


def test_losses_are_read_in_the_end_where_no_row_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unread(Callback):
        def on_batch_end(self, run: Any) -> None:
            most.append(len(run.metrics._unread))

    most: list[int] = []
    monkeypatch.setattr("pytorch_lightning.run.rows.MOST_UNREAD", 100)
    options: Any = {"add_log_row_interval": 10**9, "log_save_interval": 300}
    quiet_trainer(tmp_path, callbacks=[Unread()], **options).fit(Recorder(nb_batches=301))
    assert max(most) <= 101


@pytest.mark.parametrize("drawn", [True, False], ids=["terminal", "lines"])
def test_the_bar_of_a_resumed_epoch_has_its_total_its_name_and_its_own_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: bool, terminal: Terminal
) -> None:
    """Six of ten batches were trained before, and count for nothing in the rate: two samples in a batch of a second."""
    first = quiet_trainer(tmp_path, max_nb_steps=16, max_nb_epochs=9)
    first.fit(Recorder(nb_batches=10))
    first.save_checkpoint(tmp_path / "x.ckpt")
    now = [1000.0]

    class Slow(Recorder):
        def on_batch_end(self) -> None:
            now[0] += 1.0

        def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
            now[0] += 5.0  # isn't training
            return super().validation_step(data_batch, batch_nb)

    if drawn:
        terminal.resize(100)
        terminal.use()
    else:
        monkeypatch.setattr(sys, "stderr", io.StringIO())
    written = sys.stderr
    monkeypatch.setattr(bar_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(bar_module, "LINE_SECONDS", 0.0)
    options: Any = {"resume": tmp_path / "x.ckpt", "silence": ("not-shuffled", "first-save")}
    quiet_trainer(tmp_path, progress_bar=True, max_nb_epochs=2, **options).fit(Slow(nb_batches=10))
    if drawn:
        seen(terminal)
        text = terminal.raw.decode()
        assert text.index("epoch 2:  60%") < text.index("epoch 2:  70%"), "from the start, and not only after a batch"
        assert re.search(r"epoch 2:  70% .* 7/10 tng\S+ twice\S+ val_loss=\S+ \[00:01<00:03, 2 samples/s", text)
        assert re.search(r"epoch 2:  90% .* 9/10 tng\S+ twice\S+ val_loss=\S+ \[00:03<00:01, 2 samples/s", text)
        assert re.search(r"epoch 2: 10/10 mean_loss\S+ twice\S+ val_loss=\S+ \[00:19, 2 samples/s", text)
    else:
        lines = [line for line in written.getvalue().splitlines() if line.startswith("epoch 2: ")]  # type: ignore[attr-defined]
        assert re.match(r"epoch 2:  70%  7/10 .* \[00:01<00:03, 2 samples/s", lines[0])
        assert re.match(r"epoch 2:  90%  9/10 .* \[00:03<00:01, 2 samples/s", lines[2])


def test_every_optimizers_prog_is_shown_with_virtual_ranks_too(tmp_path: Path) -> None:
    class Gan(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
            loss = (self.weight - 3.0).pow(2).mean()
            return {"loss": loss, "prog": {f"loss_of_{optimizer_i}": loss}}

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD([self.weight], 0.1), torch.optim.SGD([self.weight], 0.1)]

    for options in ({"virtual_ranks": 2, "fast_dev_run": True}, {"virtual_ranks": 2}, {}):
        trainer = quiet_trainer(tmp_path, **options, silence=("not-shuffled", "shared-parameters"))
        trainer.fit(Gan())
        assert {"loss_of_0", "loss_of_1"} <= set(trainer.tqdm_metrics)


def test_a_pass_outside_of_a_fit_is_wiped_away(tmp_path: Path, terminal: Terminal) -> None:
    terminal.use()
    quiet_trainer(tmp_path, progress_bar=True).test(Recorder())
    assert seen(terminal) == []
    assert "test:  50% |" in terminal.raw.decode()


def test_the_bar_of_a_fit_that_stops_in_mid_epoch_shows_where(tmp_path: Path, terminal: Terminal) -> None:
    terminal.use()
    quiet_trainer(tmp_path, progress_bar=True, max_nb_steps=3).fit(Recorder())
    (line,) = seen(terminal)
    assert line.startswith("epoch 1:  75% ")
    assert " 3/4 mean_loss=" in line


def test_a_pass_has_a_line_of_its_own_with_its_numbers(tmp_path: Path, terminal: Terminal) -> None:
    terminal.use()
    quiet_trainer(tmp_path, progress_bar=True, nb_sanity_val_steps=1, current_gpu_name="A").fit(Recorder(lr=0.0))
    shown = terminal.raw.decode() if seen(terminal) else ""
    for text in ("sanity: ", "validation: ", "2/3", "tng_loss=9.000", "twice=18.00", "val_loss=1.000", "gpu=A, v_nb=0"):
        assert text in shown, text


class Feeding(Recorder):
    """Trains on a generator: a loader that can only be run again."""

    @property
    def tng_dataloader(self) -> Any:
        class Batches:
            def __len__(self) -> int:
                return 4

            def __iter__(self) -> Any:
                return ([torch.full((2, 1), float(i))] for i in range(4))

        return Batches()


@pytest.mark.parametrize(
    ("patience", "bar", "drawn", "shown"),
    [(0.0, True, True, "replaying data:"), (1e9, True, True, None), (0.0, False, True, None)]
    + [(0.0, True, False, "replaying data:  67% 2/3 ")],
    ids=["a terminal", "too fast to be shown", "no bar", "a file"],
)
def test_batches_that_are_fetched_again_are_shown(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    terminal: Terminal,
    patience: float,
    bar: bool,
    drawn: bool,
    shown: str | None,
) -> None:
    first = quiet_trainer(tmp_path, max_nb_steps=3)
    first.fit(Feeding())
    first.save_checkpoint(tmp_path / "x.ckpt")
    if drawn:
        terminal.use()
    else:
        monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(bar_module, "REPLAY_SECONDS", patience)
    monkeypatch.setattr(bar_module, "LINE_SECONDS", patience)
    model = Feeding()
    quiet_trainer(tmp_path, progress_bar=bar, resume=tmp_path / "x.ckpt").fit(model)
    assert model.seen == [[3.0]]
    if drawn:
        seen(terminal)
    text = sys.stderr.getvalue() if not drawn else terminal.raw.decode()  # type: ignore[attr-defined]
    assert (shown in text) if shown else ("replaying" not in text)


def test_the_bar_reads_numbers_only_when_it_is_drawn(
    tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.use()
    from pytorch_lightning.run.metrics import Metrics

    reads: list[int] = []
    shown = Metrics.shown
    monkeypatch.setattr(TerminalBar, "draw_seconds", 0.1)
    monkeypatch.setattr(Metrics, "shown", lambda self: (reads.append(1), shown(self))[1])
    quiet_trainer(tmp_path, progress_bar=True).fit(Recorder(nb_batches=200))
    assert len(reads) < 20


def test_process_position_moves_the_bar_down(tmp_path: Path, terminal: Terminal) -> None:
    terminal.use()
    quiet_trainer(tmp_path, progress_bar=True, process_position=1).fit(Recorder())
    seen(terminal)
    assert re.search(r"\n\repoch 1: .*\x1b\[A", terminal.raw.decode())


def test_what_is_no_terminal_gets_plain_lines_by_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = quiet_trainer(tmp_path, progress_bar=True)
    trainer.fit(Recorder(lr=0.0))
    # within the first five seconds only the end of the epoch
    (line,) = capsys.readouterr().err.splitlines()
    numbers = r"mean_loss=9.000 twice=18.00 val_loss=1.000"
    assert re.fullmatch(rf"epoch 1: 4/4 {numbers} \[00:\d\d, \S+ samples/s, v_nb=0\]", line)

    monkeypatch.setattr(bar_module, "LINE_SECONDS", 0.0)
    trainer.fit(Recorder(lr=0.0))
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r" +\d+%| [a-z]+_loss.*", "", line) for line in lines] == [
        *[f"epoch 1: {n}/4" for n in (1, 2, 3, 4)],
        *[f"validation: {n}/3" for n in (1, 2, 3)],
        "epoch 1: 4/4",
    ]
    trainer.test()
    assert [line.split(" tng")[0] for line in capsys.readouterr().err.splitlines()] == [
        "test:  50% 1/2",
        "test: 100% 2/2",
    ]


def test_several_processes_say_at_once_that_they_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first of them can say anything."""
    from pytorch_lightning.launchers import spawned

    class Started(Exception):
        pass

    def start(*arguments: Any) -> Any:
        raise Started

    monkeypatch.setattr(spawned, "run_in_processes", start)
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(Started):
        Trainer(False, nb_processes=2, default_save_path=tmp_path).fit(Recorder())
    assert out.getvalue() == "starting 2 processes\n"


def test_a_dumb_terminal_gets_lines(tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal.use()
    monkeypatch.setenv("TERM", "dumb")
    quiet_trainer(tmp_path, progress_bar=True).fit(Recorder())
    seen(terminal)
    assert not {"\r", "\x1b"} & set(terminal.raw.decode())
