"""The batch of a failing step is kept, and raises the same exception again."""

import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.errors import CheckpointError, FitError, MisconfigurationException, ProcessError
from pytorch_lightning.replay import build_module, find_model, main, read_bundle, replay
from pytorch_lightning.trainer import crash

QUIET: dict[str, Any] = {
    "progress_bar": False,
    "print_weights_summary": False,
    "nb_sanity_val_steps": 0,
    "silence": ("no-validation", "not-shuffled"),
    "max_nb_epochs": 3,
    "seed": 3,
}
LABELS = torch.arange(10_000) % 3
LABELS[7_777] = 3  # the one that there is no class for


class Classifier(LightningModule):
    """10,000 samples, one of which has a wrong label."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
        self.logits: list[Tensor] = []

    def loss(self, data_batch: Any) -> Tensor:
        x, y = data_batch
        self.last = self.layers(x)
        self.logits.append(self.last.detach())
        return nn.functional.cross_entropy(self.last, y)

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self.loss(data_batch)}

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), 0.1)]

    @property
    def tng_dataloader(self) -> Any:
        x = torch.randn(10_000, 2, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(x, LABELS), batch_size=100, shuffle=True)


def failed(model: LightningModule, folder: Path, **options: Any) -> tuple[BaseException, Path]:
    """The exception of a fit, and where its bundle would be."""
    with pytest.raises(Exception) as caught:
        Trainer(**{**QUIET, "default_save_path": folder, **options}).fit(model)
    return caught.value, folder / type(model).__name__ / "version_0" / "crash" / "bundle.pt"


def built(bundle: dict[str, Any]) -> LightningModule:
    """The model of a bundle, built anew from its class in this file."""
    return build_module(bundle, find_model(sys.modules[__name__], bundle["module"]))


def check_replay(path: Path, error: BaseException, **arguments: Any) -> LightningModule:
    """Replay in a module built anew; the exception must be the same. Returns that module."""
    bundle = read_bundle(path)
    model = built(bundle)
    with pytest.raises(type(error)) as caught:
        replay(bundle, model, **arguments)
    assert str(caught.value) == str(error)
    return model


def test_one_bad_sample_in_10_000_is_named_and_raises_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Classifier()
    error, path = failed(model, tmp_path)
    assert isinstance(error, IndexError)
    assert capsys.readouterr().err.endswith(f"python -m pytorch_lightning.replay {path} --module {__name__}\n")
    bundle = torch.load(path, weights_only=True)
    assert 7_777 in bundle["loader"]["indices"]
    assert bundle["batch"][1].max() == 3
    twin: Any = check_replay(path, error)
    assert torch.equal(twin.logits[-1], model.logits[-1])  # dropout too
    check_replay(path, error, refetch=True)


@pytest.mark.parametrize("window", [1, 2, 4])
def test_the_buffers_are_those_that_the_step_began_with(tmp_path: Path, window: int) -> None:
    """In windows of two and four the batch isn't the first."""
    model = Classifier()
    error, path = failed(model, tmp_path, accumulate_grad_batches=window)
    bundle = read_bundle(path)
    steps = bundle["global_step"]
    assert window == 1 or steps % window
    assert bundle["buffers_kept"]
    assert bundle["buffers"]["layers.1.num_batches_tracked"] == steps
    twin: Any = check_replay(path, error)
    assert torch.equal(twin.layers[1].running_mean, model.layers[1].running_mean)
    assert twin.layers[1].num_batches_tracked == model.layers[1].num_batches_tracked == steps + 1


class Large(Classifier):
    """Buffers that are too large to be copied in each step, and changed by it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(300_000))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.table += 1
        return super().training_step(data_batch, batch_nb)


class Replaced(Classifier):
    """A buffer that each step puts another tensor in the place of."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.count = torch.full((self.count.numel() % 3 + 1,), float(self.global_step))
        return super().training_step(data_batch, batch_nb)


def test_large_buffers_are_reported_as_not_kept_and_replaced_ones_are(tmp_path: Path) -> None:
    _, path = failed(Large(), tmp_path)
    assert not read_bundle(path)["buffers_kept"]
    _, path = failed(Replaced(), tmp_path)
    bundle = read_bundle(path)
    assert bundle["buffers"]["count"].tolist() == [bundle["global_step"] - 1.0] * (bundle["global_step"] % 3 + 1)


class Overflowing(Classifier):
    """Its loss overflows where dropout keeps enough of the units."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        kept = nn.functional.dropout(torch.ones(64), 0.5).sum()
        loss = super().loss([data_batch[0], data_batch[1].clamp(max=2)])
        return loss * torch.exp(torch.where(kept > 74, kept * 10, kept * 0))


@pytest.mark.parametrize("precision", ["32", "bf16", "64"])
def test_an_overflow_that_depends_on_dropout_overflows_again(tmp_path: Path, precision: str) -> None:
    model = Overflowing()
    error, path = failed(model, tmp_path, precision=precision, accumulate_grad_batches=3)
    assert isinstance(error, FitError)
    assert "isn't finite (inf)" in str(error)
    twin: Any = check_replay(path, error)
    assert torch.equal(twin.logits[-1], model.logits[-1])


class Gan(LightningModule):
    """Two optimizers, of which the second one's turn fails, by its random numbers."""

    def __init__(self, hparams: Any) -> None:
        super().__init__(hparams)
        self.a, self.b = nn.Linear(1, 1), nn.Linear(1, 1)

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:
        drawn = torch.rand(3)
        if optimizer_i == 1 and drawn[0] > self.hparams.most:
            raise ValueError(f"{drawn.tolist()} {self.a.weight.item()} {self.a.weight.requires_grad}")
        return (self.b(self.a(data_batch)) * drawn).pow(2).sum()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(layer.parameters(), 0.01) for layer in (self.a, self.b)]

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(torch.ones(50, 1))


def test_the_turn_of_a_second_optimizer_is_replayed_with_its_own_weights_and_random_numbers(tmp_path: Path) -> None:
    from argparse import Namespace

    error, path = failed(Gan(Namespace(most=0.9)), tmp_path)
    assert read_bundle(path)["optimizer_i"] == 1
    check_replay(path, error)


class Hooked(Classifier):
    """A hook between the backward pass and the step."""

    def on_after_backward(self) -> None:
        if self.global_step >= 4:
            raise RuntimeError(f"{self.layers[0].weight.grad.sum().item()}")


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_hook_before_the_step_sees_the_same_gradients(tmp_path: Path, accumulate: int) -> None:
    error, path = failed(Hooked(), tmp_path, accumulate_grad_batches=accumulate, train_percent_check=0.1)
    check_replay(path, error)


class AfterStep(Classifier):
    def on_batch_end(self) -> None:
        raise RuntimeError("too late")


def test_a_failure_after_the_step_leaves_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, path = failed(AfterStep(), tmp_path)
    assert not path.parent.exists()
    assert capsys.readouterr().err == ""


class AtStart(Classifier):
    def on_batch_start(self, data_batch: Any) -> None:
        if (data_batch[1] == 3).any():
            raise RuntimeError(f"{torch.rand(2)}")


class Lbfgs(Classifier):
    def configure_optimizers(self) -> Any:
        return [torch.optim.LBFGS(self.parameters(), max_iter=2)]


@pytest.mark.parametrize("kind", [AtStart, Lbfgs])
def test_hooks_before_the_batch_and_closures_are_replayed_too(tmp_path: Path, kind: Any) -> None:
    error, path = failed(kind(), tmp_path, accumulate_grad_batches=2)
    bundle = read_bundle(path)
    assert 7_777 in bundle["loader"]["indices"]
    check_replay(path, error)


class Broken(Dataset[Any]):
    """A file that can't be read."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Tensor:
        if index == 23:
            raise OSError(f"sample {index}: {torch.rand(2).tolist()}")
        return torch.ones(1)


class Loading(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.nb_workers = nn.Linear(1, 1), 0

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.layer(data_batch).sum()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), 0.01)]

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(Broken(), batch_size=4, shuffle=True, num_workers=self.nb_workers)


@pytest.mark.parametrize("nb_workers", [0, 1])
def test_an_error_in_a_loader_is_raised_again_in_this_process(tmp_path: Path, nb_workers: int) -> None:
    model = Loading()
    model.nb_workers = nb_workers
    error, path = failed(model, tmp_path, accumulate_grad_batches=3)
    bundle = read_bundle(path)
    assert bundle["kind"] == "loader"
    assert 23 in bundle["loader"]["indices"]
    assert f"batch_nb {bundle['batch_nb']}, sample 23" in str(error) + str(error.__notes__)
    with pytest.raises(OSError, match="sample 23") as caught:
        replay(bundle, built(bundle))
    assert str(caught.value) in str(error)  # the same random numbers


def bad_collate(samples: list[Any]) -> Any:
    if any(sample[1] == 3 for sample in samples):
        raise ValueError("can't be stacked")
    return torch.utils.data.default_collate(samples)


class Collating(Classifier):
    @property
    def tng_dataloader(self) -> Any:
        data = super().tng_dataloader.dataset
        return DataLoader(data, batch_size=100, shuffle=True, collate_fn=bad_collate)


def test_an_error_of_collate_is_raised_again(tmp_path: Path) -> None:
    error, path = failed(Collating(), tmp_path, accumulate_grad_batches=4)
    assert 7_777 in read_bundle(path)["loader"]["indices"]
    check_replay(path, error)


Pair = namedtuple("Pair", ["x", "y"])


def pair(samples: list[Any]) -> Pair:
    return Pair(*torch.utils.data.default_collate(samples))


class Paired(Classifier):
    """Its batches are of a type of its own."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.loss((data_batch.x, data_batch.y))

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(super().tng_dataloader.dataset, batch_size=2_500, shuffle=True, collate_fn=pair)


def test_a_batch_that_is_not_plain_is_fetched_again(tmp_path: Path) -> None:
    model = Paired()
    error, path = failed(model, tmp_path)
    bundle = read_bundle(path)
    assert "batch" not in bundle
    assert bundle["batch_left_out"] == "it holds a Pair, which isn't plain data"
    twin: Any = check_replay(path, error)
    assert torch.equal(twin.logits[-1], model.logits[-1])
    bundle["loader"]["indices"] = [1, 2]
    with pytest.raises(FitError, match="the training loader gives other samples than in the run"):
        replay(bundle, built(bundle))


# ------------------------------------------------------------------------------------- when there is one
def test_only_the_newest_is_kept(tmp_path: Path) -> None:
    _, path = failed(Classifier(), tmp_path)
    first = read_bundle(path)["global_step"]
    save = next(path.parent.parent.glob("checkpoints/*"), None)
    assert save is None
    failed(Overflowing(), tmp_path, default_save_path=tmp_path / "other")
    path_2 = tmp_path / "other/Overflowing/version_0/crash"
    assert [p.name for p in path_2.iterdir()] == ["bundle.pt"]
    assert first != read_bundle(path_2 / "bundle.pt")["global_step"]


def test_a_resumed_run_that_fails_again_keeps_its_last_batch_only(tmp_path: Path) -> None:
    options = {"resume": "auto", "save_every_nb_batches": 5}
    _, path = failed(Classifier(), tmp_path, **options)
    before = path.stat().st_mtime_ns
    error, _ = failed(Classifier(), tmp_path, **options)
    assert path.stat().st_mtime_ns > before
    assert [p.name for p in path.parent.iterdir()] == ["bundle.pt"]
    check_replay(path, error)


def test_a_bundle_over_the_limit_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crash, "MOST_BYTES", 1_000)
    _, path = failed(Classifier(), tmp_path)
    assert not path.exists()
    assert "the failing batch with its weights is 0.0 MB large" in capsys.readouterr().err


@pytest.mark.parametrize("options", [{"crash_bundle": False}, {"experiment": False}, {"fast_dev_run": True}])
def test_no_bundle_where_it_is_off_or_there_is_no_folder(
    tmp_path: Path, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    class AtOnce(Classifier):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            raise ValueError("at once")

    failed(AtOnce(), tmp_path, **options)
    assert not list(tmp_path.rglob("bundle*"))


def test_a_folder_that_cannot_be_written_does_not_hide_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error, _ = failed(Blocking(), tmp_path)
    assert isinstance(error, IndexError)
    assert "the failing batch can't be saved: " in capsys.readouterr().err


class Blocking(Classifier):
    def on_fit_start(self) -> None:
        folder: Any = self.trainer._run.folder
        (folder / "crash").write_text("in the way")


# ------------------------------------------------------------------------------------------ trainer.replay
class Nan(Classifier):
    """A loss that isn't finite at batch 17, by its weights and its random numbers; training isn't stopped."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        loss = super().loss([data_batch[0], data_batch[1].clamp(max=2)])
        scale = torch.rand(()) * (float("nan") if self.global_step == 17 else 1.0)
        return {"loss": loss * scale if self.global_step == 17 else loss, "own": loss.detach()}


def test_replay_goes_back_to_the_last_save_and_up_to_the_step(tmp_path: Path) -> None:
    model = Nan()
    trainer = Trainer(**QUIET, default_save_path=tmp_path, save_every_nb_batches=6)
    with pytest.raises(FitError) as caught:
        trainer.fit(model)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(FitError) as again:
        trainer.replay(17)
    assert str(again.value) == str(caught.value)
    output = trainer.replay(14)
    assert torch.equal(output["own"], nn.functional.cross_entropy(model.logits[14], read_labels(model, 14)))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    with pytest.raises(CheckpointError, match=r"batch 3 can't be replayed from .*: it holds step-0+\d+.ckpt"):
        trainer.replay(3)


def read_labels(model: Any, step: int) -> Tensor:
    from pytorch_lightning.seeding import order_scope

    with order_scope(seed=3, epoch=0):
        return [y for _, y in model.tng_dataloader][step].clamp(max=2)


def test_replay_needs_a_fit_a_save_and_a_step_that_was_reached(tmp_path: Path) -> None:
    trainer = Trainer(**QUIET, default_save_path=tmp_path, save_every_nb_batches=5)
    with pytest.raises(MisconfigurationException, match="nothing to replay before fit"):
        trainer.replay(1)
    with pytest.raises(IndexError):
        trainer.fit(Classifier())
    with pytest.raises(IndexError):  # it comes first
        trainer.replay(1_000)
    with pytest.raises(FitError, match="training ended before batch 1000"):
        Healthy.trained(tmp_path).replay(1_000)


class Healthy(Classifier):
    @classmethod
    def trained(cls, folder: Path) -> Trainer:
        trainer = Trainer(**QUIET, default_save_path=folder, save_every_nb_batches=2, train_percent_check=0.04)
        trainer.fit(cls())
        return trainer

    def loss(self, data_batch: Any) -> Tensor:
        return super().loss([data_batch[0], data_batch[1].clamp(max=2)])


# ---------------------------------------------------------------------------------------- the command line
SCRIPT = """
import sys
import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader


class Model(LightningModule):
    def __init__(self, hparams{more}):
        super().__init__(hparams)
        self.layer = torch.nn.Linear(1, hparams.width)

    def training_step(self, data_batch, batch_nb):
        drawn = torch.rand(2)
        if batch_nb == 2:
            raise ValueError(f"{{self.layer(data_batch).sum().item()}} {{drawn.tolist()}}")
        return self.layer(data_batch).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    @property
    def tng_dataloader(self):
        return DataLoader(torch.randn(8, 1), batch_size=2)


def make():
    from argparse import Namespace
    return Model(Namespace(width=3){given})


{guard}
    from argparse import Namespace
    Trainer(default_save_path={folder!r}, progress_bar=False, print_weights_summary=False).fit(
        Model(Namespace(width=3){given})
    )
"""


ROOT = Path(crash.__file__).parents[2]


def run(*words: Any, cwd: Path, text: str = "", path: str = str(ROOT)) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, cwd=cwd, env=environment, input=text
    )


def in_shell(command: str, cwd: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    """What a person gets who copies ``command`` into a shell, in which ``python`` is this one."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", f'python() {{ "{sys.executable}" "$@"; }}\n{command}'],
        capture_output=True, text=True, cwd=cwd, env=environment, input=text,
    )  # fmt: skip


def printed(first: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """The command that a failing run printed, and the line of its exception."""
    assert "the failing batch is saved. To replay it: " in first.stderr, first.stderr
    return first.stderr.split("the failing batch is saved. To replay it: ")[1].splitlines()[
        0
    ], first.stderr.splitlines()[-2]


def write_script(folder: Path, guard: str = "if __name__ == '__main__':", more: str = "", given: str = "") -> Path:
    (folder / "script").mkdir()
    script = folder / "script" / "train.py"
    script.write_text(SCRIPT.format(guard=guard, more=more, given=given, folder=str(folder / "runs")))
    return script


def raised(done: subprocess.CompletedProcess[str]) -> str:
    """The line of the exception that a program ended with, or that it printed."""
    return next(line for line in done.stderr.splitlines() if line.startswith("ValueError: "))


def test_the_printed_command_raises_the_same_exception(tmp_path: Path) -> None:
    first = run(write_script(tmp_path), cwd=tmp_path)
    command, _ = printed(first)
    assert command.endswith("/bundle.pt --script script/train.py")
    again = in_shell(f"{command} --pdb", tmp_path, text="p batch_nb * 21\nq\n")
    assert raised(again) == raised(first)
    assert "global_step 2, samples [4, 5]" in again.stdout
    assert "(Pdb) 42" in again.stdout


def test_the_printed_command_imports_from_where_the_run_did(tmp_path: Path) -> None:
    """The model lies in a package, beside a script in another folder than the one where both commands are typed."""
    script = write_script(tmp_path)
    text = script.read_text()
    package = script.parent / "package"
    (package / "deep").mkdir(parents=True)
    for place in ("__init__.py", "deep/__init__.py"):
        (package / place).write_text("")
    (package / "deep" / "models.py").write_text(text)
    main_part = text[text.index("if __name__") :]
    script.write_text(f"from pytorch_lightning import Trainer\nfrom package.deep.models import Model\n{main_part}")
    first = run(script, cwd=tmp_path)
    command, _ = printed(first)
    assert command.endswith("/bundle.pt --module package.deep.models")
    assert raised(in_shell(command, tmp_path)) == raised(first)


def test_the_printed_command_says_where_a_module_lies_only_where_python_would_not_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a folder").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    monkeypatch.chdir(tmp_path)
    begins = {}
    for place, name in {
        "models.py": "models",
        "a folder/models.py": "models",
        "a folder/package/models.py": "package.models",
        "a folder/package/__init__.py": "package",
        "other/models.py": "models",
        "lib/site-packages/models.py": "models",
    }.items():
        module = ModuleType(name)
        module.__file__ = str(tmp_path / place)
        monkeypatch.setitem(sys.modules, name, module)
        command = crash.replay_command("x y.pt", type("Model", (), {"__module__": name}))
        begins[place], _, rest = command.partition("python -m ")
        assert rest == f"pytorch_lightning.replay 'x y.pt' --module {name}"
    added = f"PYTHONPATH='{tmp_path / 'a folder'}'${{PYTHONPATH:+:$PYTHONPATH}} "
    assert list(begins.values()) == ["", added, added, added, "", ""]


def test_the_printed_command_of_a_module_that_was_started_as_a_program(tmp_path: Path) -> None:
    script = write_script(tmp_path)
    (script.parent / "__init__.py").write_text("")
    first = run("-m", "script.train", cwd=tmp_path)
    command, _ = printed(first)
    assert command.endswith("--module script.train")
    assert raised(in_shell(command, tmp_path)) == raised(first)


def test_the_printed_command_of_a_program_without_a_file_asks_for_one(tmp_path: Path) -> None:
    text = write_script(tmp_path).read_text()
    command, _ = printed(run("-", cwd=tmp_path, text=text))
    assert "--script FILE (a file that defines Model" in command


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command says instead of replaying."""
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_script_that_fits_on_import_and_a_class_with_other_arguments_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = write_script(tmp_path, guard="if True:", more=", depth", given=", object()")
    run(script, cwd=tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    path = str(tmp_path / "runs/Model/version_0/crash/bundle.pt")
    assert "starts a fit when it is imported" in refused([path, "--script", str(script)], capsys)
    script.write_text(script.read_text().replace("if True:", "if __name__ == '__main__':"))
    said = refused([path, "--script", str(script)], capsys)
    assert "doesn't hold these arguments of Model.__init__, of which only plain data is kept: depth (object). " in said
    assert "Pass --model NAME" in said
    with pytest.raises(ValueError, match=r"\[0\."):
        main([path, "--script", str(script), "--model", "make"])
    monkeypatch.syspath_prepend(script.parent)
    with pytest.raises(ValueError, match=r"\[0\."):
        main([path, "--module", "train", "--model", "make"])
    capsys.readouterr()
    said = refused([path, "--module", "train", "--model", "Nothing"], capsys)
    assert f"'Nothing' isn't a LightningModule defined in {script}, which defines Model." in said
    script.unlink()
    said = refused([path, "--script", str(script)], capsys)
    assert f"{script} can't be imported: " in said
    assert "No such file" in said
    assert "no.such.module can't be imported: " in refused([path, "--module", "no.such.module"], capsys)
    assert "notes.txt can't be imported: " in refused([path, "--script", "notes.txt"], capsys)
    del sys.modules["train"]  # other tests have one of their own


SIZED = """
class Model(LightningModule):
    def __init__(self, width, *sizes, depth=1, api_key=None):
        super().__init__()
        self.layer = torch.nn.Linear(1, width * depth + sum(sizes))
"""


def test_a_model_whose_constructor_takes_arguments_is_built_from_them(tmp_path: Path) -> None:
    """No function that returns it is needed; the file holds them as plain data, and no secret."""
    script = write_script(tmp_path)
    text = script.read_text()
    begin, end = text.index("class Model"), text.index("    def training_step")
    text = text[:begin] + SIZED.lstrip() + "\n" + text[end:]
    script.write_text(text.replace("Model(Namespace(width=3))", "Model(3, 4, 5, depth=2, api_key='hidden')"))
    first = run(script, cwd=tmp_path)
    command, _ = printed(first)
    again = in_shell(command, tmp_path)
    assert (
        "doesn't hold these arguments of Model.__init__, of which only plain data is kept: api_key (a secret"
        in again.stderr
    )
    script.write_text(script.read_text().replace(", api_key='hidden'", ""))
    first = run(script, cwd=tmp_path)
    command, _ = printed(first)
    assert raised(in_shell(command, tmp_path)) == raised(first)
    call = torch.load(tmp_path / "runs/Model/version_1/crash/bundle.pt", weights_only=True)["init_arguments"]["call"]
    assert call["arguments"] == {"width": 3, "*sizes": (4, 5), "depth": 2, "api_key": None}


OTHERS: dict[str, Any] = {"hparams_argument": None, "hparams_kinds": None}


@pytest.mark.parametrize(
    "part",
    [None, {}, {"call": 3}, {"call": 3, **OTHERS}, {"call": {"arguments": 1, "kinds": {}, "missing": {}}, **OTHERS}],
)
def test_arguments_that_no_run_wrote_are_a_damaged_bundle(tmp_path: Path, part: Any) -> None:
    _, path = failed(Classifier(), tmp_path)
    torch.save({**read_bundle(path), "init_arguments": part}, path)
    with pytest.raises(CheckpointError, match=r"isn't a whole crash bundle|is damaged"):
        built(read_bundle(path))


def test_a_replay_without_an_exception_and_another_kind_of_file_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, path = failed(Classifier(), tmp_path)
    bundle = read_bundle(path)
    bundle["batch"][1].clamp_(max=2)
    torch.save(bundle, path)
    assert main([str(path), "--module", __name__]) == 0
    assert capsys.readouterr().out.endswith("no exception was raised\n")
    torch.save({"weights": 1}, path)
    assert "isn't a crash bundle of this version; it holds ['weights']" in refused([str(path)], capsys)


# ------------------------------------------------------------------------------------ which code runs
TRAP = """
from pathlib import Path
from subprocess import Popen
import pytorch_lightning
import subprocess
from pytorch_lightning import LightningModule


class Trap:
    def __new__(cls, *arguments):
        Path("ran").touch()


def function(hparams=None):
    Path("ran").touch()


class Nearly(type):
    def __getattr__(self, name):
        Path("ran").touch()
    def __subclasscheck__(self, other):
        Path("ran").touch()
        return True
    def __instancecheck__(self, other):
        return True


class Odd(metaclass=Nearly):
    pass


instance = LightningModule()
Base = LightningModule


class Model(LightningModule):
    build = Popen
    inner = LightningModule
    class Inner(LightningModule):
        pass
"""
NAMES = [
    "Trap", "function", "Popen", "subprocess.Popen", "subprocess", "Path", "instance", "instance.forward", "Odd",
    "Odd.x", "LightningModule", "Base", "Model.build", "Model.inner", "Model.__init__", "Model.__class__",
    "Model.__init__.__globals__", "pytorch_lightning.LightningModule", "__builtins__.exec", "print", "Nothing",
    "Model.Inner.nothing", "", ".", "Model.", "\x1b[2Jx", "os\nsystem", "trap.Model", "x" * 100_000,
]  # fmt: skip


def test_only_a_model_that_the_named_code_defines_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bundle names a class; whatever else it names there is refused, and nothing is called to find out."""
    _, path = failed(Classifier(), tmp_path)
    (tmp_path / "trap.py").write_text(TRAP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    bundle = read_bundle(path)
    capsys.readouterr()
    for name in NAMES:
        torch.save({**bundle, "module": name}, "bundle.pt")
        said = refused(["bundle.pt", "--script", "trap.py"], capsys)
        assert "isn't a LightningModule defined in " in said, name
        assert said.rstrip("\n").isprintable()
        assert len(said) < 700
        assert not Path("ran").exists(), name
    for name in ("Model", "Model.Inner"):  # those are; their weights are others
        torch.save({**bundle, "module": name}, "bundle.pt")
        assert "the state in the bundle isn't that of " in refused(["bundle.pt", "--script", "trap.py"], capsys)


def test_no_code_is_imported_that_only_the_bundle_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a module of the environment, nor a file that lies beside the bundle."""
    _, path = failed(Classifier(), tmp_path)
    monkeypatch.chdir(path.parent)
    Path("trap.py").write_text("open('ran', 'w')\nclass X: pass\n")
    bundle = read_bundle(path)
    file = str(path.parent / "trap.py")
    before = set(sys.modules)
    capsys.readouterr()
    for named in ("trap.X", "trap:X", file, f"{file}:X", {"module": "trap", "name": "X", "file": file}, ("trap", "X")):
        for version in (1, 2):  # bundles said where the class was defined, once
            torch.save({**bundle, "module": named, "bundle": version}, path)
            said = refused([str(path)], capsys)
            assert "bundle" in said
    assert not Path("ran").exists()
    assert not {name for name in set(sys.modules) - before if "trap" in name}


def test_a_bundle_holds_no_path_and_says_which_code_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, path = failed(Classifier(), tmp_path)
    assert read_bundle(path)["module"] == "Classifier"
    content = path.read_bytes()
    for place in (str(tmp_path), str(Path(__file__).parent), "test_replay", str(Path.home())):
        assert place.encode() not in content
    capsys.readouterr()
    assert "Pass --script FILE or --module package.module" in refused([str(path)], capsys)


def test_what_a_bundle_says_cannot_command_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, path = failed(Classifier(), tmp_path)
    bundle = read_bundle(path)
    bundle["error"] = {"type": "\x1b]0;title\x07", "message": "a\x1b[2Jb\r\n" + "c" * 10_000}
    torch.save(bundle, path)
    capsys.readouterr()
    with pytest.raises(IndexError):
        main([str(path), "--module", __name__])
    said = capsys.readouterr()
    assert all(character.isprintable() for character in (said.out + said.err).replace("\n", ""))
    assert len(said.out) < 1_000 + len(str(bundle["loader"]["indices"]))


def test_a_bundle_is_private_and_other_files_obey_the_umask(tmp_path: Path) -> None:
    for mask in (0o000, 0o022, 0o077):
        before = os.umask(mask)
        try:
            _, path = failed(Classifier(), tmp_path / f"{mask:o}", save_every_nb_batches=5)
        finally:
            os.umask(before)
        modes = {p.name: p.stat().st_mode & 0o777 for p in path.parents[1].rglob("*")}
        assert modes.pop("bundle.pt") == 0o600
        folders = {p.name for p in path.parents[1].rglob("*") if p.is_dir()}
        assert {"meta_tags.csv", "metrics.csv", ".lock", "crash"} <= set(modes)
        assert any(name.startswith("step-") for name in modes)
        assert {modes[name] for name in folders} == {0o777 & ~mask}
        assert {mode for name, mode in modes.items() if name not in folders} == {0o666 & ~mask}


def test_a_bundle_is_private_also_where_a_dead_process_left_another_file(tmp_path: Path) -> None:
    from pytorch_lightning.checkpoints.store import write_checkpoint

    (tmp_path / f".bundle.pt.{os.getpid()}.tmp").touch(0o666)
    (tmp_path / f".bundle.pt.{os.getpid()}.tmp").chmod(0o666)
    assert write_checkpoint({}, tmp_path / "bundle.pt", private=True).stat().st_mode & 0o777 == 0o600
    (tmp_path / "aim").write_text("of somebody else")
    (tmp_path / f".other.pt.{os.getpid()}.tmp").symlink_to(tmp_path / "aim")
    with pytest.raises(CheckpointError, match="can't be written"):
        write_checkpoint({}, tmp_path / "other.pt")
    assert (tmp_path / "aim").read_text() == "of somebody else"


# ------------------------------------------------------------------------------------------ several processes
class Ranked(Loading):
    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if float(data_batch) == 5:
            raise ValueError(f"sample 5 {torch.rand(2).tolist()}")
        return self.layer(data_batch).sum()

    @property
    def tng_dataloader(self) -> Any:
        return DataLoader(torch.arange(8.0).unsqueeze(1))


def test_the_rank_that_fails_writes_its_own_bundle(tmp_path: Path) -> None:
    model = Ranked()
    with pytest.raises(ValueError, match="sample 5") as caught:
        Trainer(**QUIET, default_save_path=tmp_path, nb_processes=2).fit(model)
    folder = tmp_path / "Ranked" / "version_0" / "crash"
    assert [p.name for p in folder.iterdir()] == ["bundle.rank1.pt"]
    bundle = read_bundle(folder / "bundle.rank1.pt")
    assert (bundle["batch_nb"], bundle["virtual_rank"], bundle["loader"]["indices"]) == (2, 1, [5])
    assert isinstance(caught.value.__cause__, ProcessError)
    with pytest.raises(ValueError, match="sample 5") as again:
        replay(bundle, built(bundle))
    assert str(again.value) in str(caught.value)


class RankedNan(Ranked):
    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        loss = self.layer(data_batch).sum()
        return loss / 0.0 if float(data_batch) == 6 else loss


def test_of_several_virtual_ranks_the_one_with_the_bad_loss_is_kept(tmp_path: Path) -> None:
    error, path = failed(RankedNan(), tmp_path, virtual_ranks=2, accumulate_grad_batches=2)
    assert isinstance(error, FitError)
    assert read_bundle(path)["loader"]["indices"] == [6]
    check_replay(path, error)
