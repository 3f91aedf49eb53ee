"""``python -m pytorch_lightning report``: one page about runs: it shows what their files hold, and obeys nothing."""

import base64
import csv
import html.parser
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import pytorch_lightning
from pytorch_lightning import Trainer
from pytorch_lightning.commands import main
from pytorch_lightning.commands.reporting import page as page_module
from pytorch_lightning.errors import MisconfigurationException
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.run.listing import rows_of
from tests.recorder import QUIET, Recorder


class Page(html.parser.HTMLParser):
    """A report as a browser would take it apart."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source, self.tags, self.texts = path.read_text(), list[tuple[str, dict[str, Any]]](), list[str]()
        self.scripts = list[str]()
        self._is_script = False
        self.feed(self.source)
        self.data = json.loads(next(text for text in self.scripts if text.startswith('{"charts"')))

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        self._is_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._is_script = False

    def handle_data(self, data: str) -> None:
        (self.scripts if self._is_script else self.texts).append(data)

    @property
    def text(self) -> str:
        return "\n".join(text for text in self.texts if text.strip())

    def section(self, title: str) -> str:
        return next(part for part in self.text.split("\n\n\n") if title in part)

    def traces(self, column: str) -> list[dict[str, Any]]:
        """The curves in the chart of a column."""
        return self.charts[column]

    @property
    def charts(self) -> dict[str, list[dict[str, Any]]]:
        caption = r'<figcaption>(.*?)(?:<small>.*?)?</figcaption><div class="chart" data-chart="(\d+)">'
        found = re.findall(caption, self.source)
        return {html.unescape(name): self.data["charts"][int(i)] for name, i in found}

    def table(self, title: str) -> dict[str, list[str]]:
        """The first table after a title: cells by the row's label."""
        part = self.source[self.source.index(title) :]
        part = part[part.index("<tbody>") : part.index("</tbody>")]
        rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', part)
        plain = [(re.sub("<.*?>", "", name), re.findall("<td>(.*?)</td>", cells)) for name, cells in rows]
        return {html.unescape(name): [html.unescape(re.sub("<.*?>", "", c)) for c in cells] for name, cells in plain}


def reported(*folders: Path | str, to: Path) -> Page:
    return Page(pytorch_lightning.report(folders, to))


def written(folder: Path, columns: dict[str, list[float]], hparams: dict[str, Any] | None = None) -> Path:
    """The folder of a run with these columns, as a CSVLogger leaves it."""
    folder.mkdir(parents=True)
    with open(folder / "metrics.csv", "w", newline="") as file:
        csv.writer(file).writerows([columns.keys(), *zip(*columns.values(), strict=True)])
    with open(folder / "meta_tags.csv", "w", newline="") as file:
        csv.writer(file).writerows([("key", "value"), *(hparams or {}).items()])
    return folder


def fitted(folder: Path, model: Any, **options: Any) -> Path:
    logger = CSVLogger(folder, "m")
    Trainer(logger, **{**QUIET, "max_nb_epochs": 1, "add_log_row_interval": 1, **options}).fit(model)
    assert logger.folder is not None
    return logger.folder


# ------------------------------------------------------------------ a run that is cut
PROGRAM = """
import json, os, signal, sys, time
from argparse import Namespace
from pathlib import Path
import torch
from pytorch_lightning import LightningModule, Trainer

dies_after = int(sys.argv[1])

class Model(LightningModule):
    def __init__(self):
        super().__init__(Namespace(lr=0.1))
        self.layer = torch.nn.Linear(4, 1)
    def training_step(self, data_batch, batch_nb):
        step = self.trainer.global_step
        ends = time.time() + 2.0  # one that is due while another is written is left out
        while step % 2 == 0 and time.time() < ends and not list(Path("logs").rglob(f"step-{step:012}.ckpt")):
            time.sleep(0.02)
        if step == dies_after + 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"loss": self.layer(data_batch).pow(2).mean(), "prog": {"square": self.trainer.global_step**2}}
    def validation_step(self, data_batch, batch_nb):
        return {}
    def validation_end(self, outputs):
        return {"val_loss": [0.5, 0.25, 0.75][self.current_epoch]}
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
    @property
    def tng_dataloader(self):
        return torch.utils.data.DataLoader(torch.randn(16, 4), batch_size=4, shuffle=True)
    @property
    def val_dataloader(self):
        return torch.utils.data.DataLoader(torch.randn(4, 4), batch_size=4)

torch.manual_seed(0)
options = {"max_nb_epochs": 3, "save_every_nb_batches": 2, "nb_sanity_val_steps": 0, "seed": 1, "resume": "auto"}
options |= {"default_save_path": "logs", "progress_bar": False, "add_log_row_interval": 1, "log_save_interval": 1}
print(time.time(), flush=True)
Trainer(**options).fit(Model())
"""


def cut_twice(folder: Path) -> tuple[Path, list[int], list[float]]:
    """A run that was killed after batches 6 and 10 and came to its end; the steps of the newest saves after each kill;
    the seconds of its three programs, up to their last saves and up to their ends."""
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(PROGRAM)
    run, newest, seconds = folder / "logs" / "Model" / "version_0", list[int](), [0.0, 0.0]
    for dies_after, status in ((6, -signal.SIGKILL), (10, -signal.SIGKILL), (100, 0)):
        command = [sys.executable, "-W", "ignore", "train.py", str(dies_after)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
        assert done.returncode == status, done.stderr
        began, saves = float(done.stdout.split()[0]), sorted(run.glob("checkpoints/*.ckpt"))
        newest.append(int(saves[-1].stem.removeprefix("step-")))
        seconds = [seconds[0] + saves[-1].stat().st_mtime - began, seconds[1] + time.time() - began]
        time.sleep(1.0)  # no part of the run
    return run, newest[:2], seconds


@pytest.mark.slow
def test_a_run_that_was_killed_twice_is_one_curve_with_two_resumes_on_the_axis(tmp_path: Path) -> None:
    run, saves, seconds = cut_twice(tmp_path / "cut")
    page = reported(run, to=tmp_path / "report.html")
    (curve,) = page.traces("square")
    assert curve["x"] == list(range(12))
    assert curve["y"] == [step**2 for step in range(12)]
    (val_loss,) = page.traces("val_loss")
    assert (val_loss["x"], val_loss["y"]) == ([3, 7, 11], [0.5, 0.25, 0.75])
    marks = page.data["marks"]
    assert [mark["x"] for mark in marks] == [[step, step] for step in saves]
    assert [mark["name"] for mark in marks] == ["resumed", "resumed"]
    assert f"resumed at {saves[0]}, " in marks[0]["text"].replace("<br>", " ")
    assert "start 3. The one before: killed" in marks[1]["text"].replace("<br>", " ")
    assert "complete" in page.table("<h2>Runs")["state"][0]
    assert "in 3 starts, 12 batches" in page.table("<h2>Runs")["state"][0]
    # the time between a kill and the resume is none of the run's
    (row,) = rows_of(tmp_path / "cut")
    assert 0.7 * seconds[0] < row["seconds"] < seconds[1]
    times = page.table("<h2>Where the time went")
    assert sum(float(cells[0].split(" s")[0]) for cells in times.values()) == pytest.approx(row["seconds"], abs=0.6)


class Failing(Recorder):
    fails_at: int | None = None

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if self.current_epoch * 4 + batch_nb == self.fails_at:
            raise ValueError("a <b>bad</b> batch")
        return super().training_step(data_batch, batch_nb)


def test_a_failure_and_the_resume_after_it_are_marked(tmp_path: Path) -> None:
    options = {**QUIET, "default_save_path": str(tmp_path), "max_nb_epochs": 2, "save_every_nb_batches": 2}
    model = Failing()
    vars(model)["fails_at"] = 5
    with pytest.raises(ValueError, match="bad"):
        Trainer(resume="auto", **options).fit(model)
    (run,) = tmp_path.glob("Failing/*")
    page = reported(run, to=tmp_path / "failed.html")
    assert [(mark["name"], mark["x"]) for mark in page.data["marks"]] == [("failed", [5, 5])]
    assert "ValueError: a &lt;b&gt;bad&lt;/b&gt; batch" in page.data["marks"][0]["text"].replace("<br>", " ")
    assert "failed (ValueError: a <b>bad</b> batch)" in page.table("<h2>Runs")["state"][0]
    Trainer(resume="auto", **options).fit(Failing())
    page = reported(run, to=tmp_path / "resumed.html")
    marks = [(mark["name"], mark["x"][0]) for mark in page.data["marks"]]
    assert marks == [("failed", 5), ("resumed", json.loads((run / "run.json").read_text())["starts"][1]["from_step"])]
    assert marks[1][1] in (4, 5)  # of the save that the failure left


# ------------------------------------------------------------------ curves
def test_few_points_are_all_drawn(tmp_path: Path) -> None:
    numbers = random.Random(0)
    y = [numbers.gauss(0, 1) for _ in range(300)]
    x = [3 * i for i in range(300)]
    run = written(tmp_path / "a" / "version_0", {"global_step": x, "tng_loss": y, "acc": y, "lr_0": [0.1] * 300})
    page = reported(run, to=tmp_path / "report.html")
    (acc,) = page.traces("acc")
    assert acc["x"] == x
    assert acc["y"] == [float(f"{value:.7g}") for value in y]
    raw, smooth = page.traces("tng_loss")
    assert (raw["x"], raw["y"], raw["opacity"]) == (acc["x"], acc["y"], 0.3)
    # each the mean of one in 50 rows around it
    at = smooth["x"].index(150)
    assert smooth["y"][at] == pytest.approx(sum(y[47:54]) / 7, rel=1e-5)
    assert (smooth["opacity"], len(smooth["x"])) == (1, 300)


@pytest.mark.slow
def test_50000_rows_are_a_small_page_that_is_written_soon_and_shows_each_spike(tmp_path: Path) -> None:
    numbers = random.Random(1)
    nb = 50_000
    names = ["tng_loss", "lr_0", "acc", "grad_2_norm_total", "gpu_0", "other", "another", "more"]
    columns: dict[str, list[float]] = {"global_step": [10 * i for i in range(nb)]}
    spikes = {}
    for name in names:
        columns[name] = [numbers.gauss(0, 1) + i / nb for i in range(nb)]
        spikes[name] = {2500 * k + numbers.randrange(2400): (-1) ** k * (100 + k) for k in range(20)}
        for i, value in spikes[name].items():
            columns[name][i] = value
    run = written(tmp_path / "version_0", columns)
    began = time.process_time()
    path = pytorch_lightning.report(run, tmp_path / "report.html")
    assert time.process_time() - began < 3
    assert path.stat().st_size < 10_000_000
    page = Page(path)
    for name in names:
        curve = page.traces(name)[0]
        drawn = dict(zip(curve["x"], curve["y"], strict=True))
        assert {10 * i: value for i, value in spikes[name].items()}.items() <= drawn.items()
        assert 1000 < len(curve["x"]) <= 2002
        assert (curve["x"][0], curve["x"][-1]) == (0, 10 * (nb - 1))
        assert curve["x"] == sorted(curve["x"])
    assert "lowest and highest of 1,000 pieces" in page.text


def test_many_columns_have_fewer_points_each(tmp_path: Path) -> None:
    nb, numbers = 1000, random.Random(2)
    columns = {f"grad_2_norm_{i}": [numbers.random() for _ in range(nb)] for i in range(200)}
    run = written(tmp_path / "version_0", {"global_step": [*range(nb)], **columns})
    path = pytorch_lightning.report(str(run), tmp_path / "report.html")
    assert path.stat().st_size < 10_000_000
    page = Page(path)
    assert len(page.charts) == 200
    for i in range(0, 200, 37):
        (curve,) = page.traces(f"grad_2_norm_{i}")
        assert max(columns[f"grad_2_norm_{i}"]) == pytest.approx(max(curve["y"]), rel=1e-6)


def test_columns_are_in_their_sections(tmp_path: Path) -> None:
    class Model(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            found = super().training_step(data_batch, batch_nb)
            return {**found, "prog": {**found["prog"], "aux_loss": 1.0}}

        def on_epoch_end(self) -> None:
            self.experiment.log({"by_hand": 3.0})

    run = fitted(tmp_path, Model(), track_grad_norm=2)
    source = reported(run, to=tmp_path / "report.html").source
    found = {}
    for section in source.split("<section><h2>")[1:]:
        names = re.findall(r"<figcaption>(\w+)", section)
        found[section.partition("<")[0]] = names
    assert found["Training loss"] == ["tng_loss", "aux_loss"]
    assert found["Validation and epochs"] == ["val_loss", "by_hand"]
    assert found["Learning rates"] == ["lr_0"]
    assert found["Gradient norms"] == ["grad_2_norm_total", "grad_2_norm_0"]
    assert found["Other columns"] == ["twice"]


@pytest.mark.parametrize(("given", "place"), [({"epoch": [0, 1, 2]}, "epoch"), ({}, "row")])
def test_rows_without_steps_are_over_what_they_have(tmp_path: Path, given: Any, place: str) -> None:
    run = written(tmp_path / "version_0", {**given, "val_acc": [0.5, math.inf, 0.7]})
    page = reported(run, to=tmp_path / "report.html")
    assert (page.data["x"], page.data["marks"]) == (place, [])
    (curve,) = page.traces("val_acc")
    assert (curve["x"], curve["y"]) == ([0, 2], [0.5, 0.7])
    assert "1 infinite, not drawn" in page.text


# ------------------------------------------------------------------ what differs, times, versions
def test_what_differs_is_above_and_all_is_folded(tmp_path: Path) -> None:
    class Tuned(Recorder):
        def __init__(self, lr: float, width: int = 8, api_key: str = "s3cret") -> None:
            super().__init__(lr=lr)
            self.hparams = {"lr": lr, "width": width, "api_key": api_key}

    runs = [
        fitted(tmp_path, Tuned(0.1), gradient_clip=1.0),
        fitted(tmp_path, Tuned(0.2), gradient_clip=2.0),
    ]
    page = reported(*runs, to=tmp_path / "report.html")
    above = page.table("<h2>Runs")
    assert (above["lr"], above["gradient_clip"]) == (["0.1", "0.2"], ["1.0", "2.0"])
    assert not {"width", "max_nb_epochs", "api_key"} & above.keys()
    assert page.table("All hparams")["width"] == ["8", "8"]
    assert page.table("All options")["max_nb_epochs"] == ["1", "1"]
    assert page.table("All hparams")["api_key"] == ["(hidden)", "(hidden)"]
    assert "s3cret" not in page.source
    alone = reported(runs[0], to=tmp_path / "alone.html").table("<h2>Runs")
    assert (alone["lr"], alone["width"]) == (["0.1"], ["8"])


def test_times_versions_and_the_model_are_those_of_the_fit(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, "m")
    trainer = Trainer(logger, **QUIET, max_nb_epochs=5)
    model = Recorder()
    trainer.fit(model)
    assert logger.folder is not None
    (start,) = json.loads((logger.folder / "run.json").read_text())["starts"]
    assert sum(start["seconds"].values()) == pytest.approx(start["ended"] - start["began"], rel=0.5, abs=0.3)
    assert {"start", "data", "forward", "validation"} <= start["seconds"].keys()
    page = reported(logger.folder, to=tmp_path / "report.html")
    times = page.table("<h2>Where the time went")
    assert times["forward"][0].split(" s")[0] == f"{start['seconds']['forward']:.1f}"
    assert sum(int(cells[0].rpartition(" ")[2][:-1]) for cells in times.values()) == pytest.approx(100, abs=5)
    versions = page.table("<summary>Versions")
    assert versions["torch"] == [str(torch.__version__)]
    assert versions["python"] == [sys.version.split()[0]]
    assert versions["pytorch_lightning"] == [pytorch_lightning.__version__]
    assert os.uname().release in versions["platform"][0]
    assert "1 parameters, 1 trainable" in page.text


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_the_one_that_git_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "repository"
    (repository / "inner").mkdir(parents=True)

    def noted(program: Path) -> Any:
        monkeypatch.setattr(sys.modules["__main__"], "__file__", str(program), raising=False)
        run = fitted(tmp_path / "logs", Recorder())
        return json.loads((run / "run.json").read_text())["starts"][0]["versions"]["commit"]

    program = repository / "inner" / "train.py"
    assert noted(program) is None
    git(repository, "init")
    assert noted(program) is None  # there is no commit yet
    git(repository, "commit", "--allow-empty", "-m", "first")
    assert noted(program) == git(repository, "rev-parse", "HEAD")
    git(repository, "pack-refs", "--all")
    assert noted(program) == git(repository, "rev-parse", "HEAD")
    git(repository, "worktree", "add", "-b", "other/name", "../tree")
    git(tmp_path / "tree", "commit", "--allow-empty", "-m", "second")
    assert noted(tmp_path / "tree" / "train.py") == git(tmp_path / "tree", "rev-parse", "HEAD")
    git(repository, "checkout", "--detach")
    assert noted(program) == git(repository, "rev-parse", "HEAD") != git(tmp_path / "tree", "rev-parse", "HEAD")


# ------------------------------------------------------------------ what was logged
class Showing(Recorder):
    def on_epoch_end(self) -> None:
        self.experiment.log_image("conf/usion", torch.full((1, 2, 3), 0.25 * self.current_epoch))
        self.experiment.log_text("sample", f"a < b, epoch {self.current_epoch}")


def test_images_and_texts_are_on_the_page_the_newest_first(tmp_path: Path) -> None:
    run = fitted(tmp_path, Showing(), max_nb_epochs=3)
    page = reported(run, to=tmp_path / "report.html")
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    files = [run / "media" / "conf" / f"usion_{step}.png" for step in (12, 8, 4)]
    images = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources]
    assert images == [file.read_bytes() for file in files]
    shown, earlier = (page.source[page.source.index("<h2>Logged") :]).split("<summary>4 earlier", 1)
    assert "a &lt; b, epoch 2" in shown
    assert "a &lt; b, epoch 1" not in shown
    assert "a &lt; b, epoch 1" in earlier


def test_what_is_no_picture_or_too_large_is_named_but_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = written(tmp_path / "version_0", {"global_step": [0, 1], "val_loss": [1.0, 2.0]})
    media = run / "media"
    media.mkdir()
    (media / "drawing_1.svg").write_text("<svg onload='hacked=1'/>")
    (media / "page_1.html").write_text("<script>hacked=1</script>")
    (media / "false_1.png").write_text("<svg onload='hacked=1'/>")
    (tmp_path / "secret.txt").write_text("of somebody else")
    (media / "link_1.txt").symlink_to(tmp_path / "secret.txt")
    os.mkfifo(media / "pipe_1.txt")
    Image.effect_noise((50, 50), 90).save(media / "large_1.png")
    monkeypatch.setattr(page_module, "MOST_BYTES_OF_MEDIA", 1000)
    page = reported(run, to=tmp_path / "report.html")
    assert "hacked" not in page.source
    assert "of somebody else" not in page.source
    assert [tag for tag, _ in page.tags if tag in ("img", "svg")] == []
    listed = page.text.partition("not on this page: ")[2]
    assert all(f"media/{name}" in listed for name in ("drawing_1.svg", "page_1.html", "false_1.png", "large_1.png"))
    monkeypatch.undo()
    page = reported(run, to=tmp_path / "report.html")
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 1


# ------------------------------------------------------------------ hostile texts
HOSTILE = "</script><script>hacked=1</script><img src=x onerror=hacked=1>\"'&amp;{{plotly}}%{y}"


def hostile_run(folder: Path) -> Path:
    """A run whose every text wants to be more than a text."""
    name = HOSTILE.replace("/", "\u2215")
    columns = {name: [1.0, 2.0, 3.0] for name in ("global_step", HOSTILE, "val <b>x</b>", "tng_loss")}
    run = written(folder / name, columns, {"width": HOSTILE, HOSTILE: 1, "other": "<script>hacked=1</script>"})
    (run / "options.yaml").write_text(f"{HOSTILE}: {HOSTILE}\n")
    start = {
        "began": 1.0, "ended": 2.0, "from_step": 0, "state": "failed", "global_step": 1, "error": HOSTILE,
        "versions": {HOSTILE: HOSTILE}, "seconds": {"data": 1.0, HOSTILE: 2.0},
    }  # fmt: skip
    starts = [start, {"began": "x", "from_step": 10**400, "seconds": 3, "versions": []}, start]
    (run / "run.json").write_text(json.dumps({"model": HOSTILE, "summary": HOSTILE, "starts": starts}))
    (run / "media").mkdir()
    (run / "media" / f"{name}_1.txt").write_text(HOSTILE)
    (run / "media" / f"{name}_1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + HOSTILE.encode())
    return run


TAGS = {
    *("html", "head", "meta", "title", "style", "script", "body", "header", "h1", "h2", "h3", "p", "nav", "div"),
    *("button", "i", "b", "label", "input", "noscript", "section", "table", "thead", "tbody", "tr", "th", "td"),
    *("main", "figure", "figcaption", "details", "summary", "pre", "span", "small", "img", "footer"),
}


def test_texts_of_a_run_stay_texts(tmp_path: Path) -> None:
    runs = [hostile_run(tmp_path / "a"), written(tmp_path / "b", {"global_step": [0], "tng_loss": [1.0]})]
    page = reported(*runs, to=tmp_path / "report.html")
    assert {tag for tag, _ in page.tags} <= TAGS
    assert len(page.scripts) == len([tag for tag, _ in page.tags if tag == "script"]) == 3
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 8
    assert page.charts.keys() >= {HOSTILE[:160], "val <b>x</b>"}
    # plotly draws some HTML: what it is given has none
    traces = [trace for drawn in (*page.charts.values(), page.data["marks"]) for trace in drawn]
    texts = [trace[key] for trace in traces for key in ("name", "text") if key in trace]
    assert texts
    assert not [text for text in texts if "<" in text.replace("<br>", "")]
    assert "<br>" in "".join(texts)
    assert "<" not in page.scripts[0]
    # nothing but the two scripts runs, and nothing is fetched
    policy = next(attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv"))
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.partition("style-src")[0]
    assert re.findall(r'(?:src|href)="(?!data:)', page.source.replace(page.scripts[1], "")) == []


# ------------------------------------------------------------------ the command
def test_the_command_writes_the_page_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path / "version_0", {"global_step": [0, 1], "val_loss": [1.0, 2.0]})
    target = tmp_path / "of runs.html"
    target.write_text("before")
    assert main(["report", str(run), str(run) + "/", "-o", str(target)]) == 0
    assert capsys.readouterr().out.startswith(f"{target}: 4.")
    assert len(Page(target).traces("val_loss")) == 1  # one run, named twice
    assert [path.name for path in tmp_path.iterdir()] in (["version_0", target.name], [target.name, "version_0"])


def test_what_can_not_be_reported_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = written(tmp_path / "logs" / "version_0", {"global_step": [0, 1], "val_loss": [1.0, 2.0]})
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "meta_tags.csv").write_text("key,value\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    for words, text in (
        ([tmp_path / "nowhere"], "there is no folder"),
        (
            [tmp_path / "logs"],
            f"isn't the folder of a run: .* Below it there are: {re.escape(str(run))}",
        ),
        ([empty], "isn't the folder of a run"),
        ([bare], "no row of numbers in .*bare"),
        ([run, "-o", tmp_path / "none" / "report.html"], "can't be written: No such file"),
    ):
        assert main(["report", *map(str, words)]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert re.search(text, err)
        assert err.count("\n") == 1
    # beside one that has rows it is shown
    page = reported(run, bare, to=tmp_path / "report.html")
    assert len(page.table("<h2>Runs")["state"]) == 2
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(MisconfigurationException, match=re.escape('pip install "pytorch-lightning-classic[report]"')):
        pytorch_lightning.report(run, tmp_path / "report.html")
