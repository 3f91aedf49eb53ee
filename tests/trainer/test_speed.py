"""Compiled steps, fused optimizers, and a trace."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.errors import MisconfigurationException
from tests.recorder import quiet_trainer


class Dropping(LightningModule):
    """A network with dropout on ready batches; notes whether its steps run compiled."""

    def __init__(self, kind: Any = torch.optim.Adam, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 1))
        self.kind, self.options = kind, options
        self.was_compiled: set[bool] = set()
        self.optimizer: Any = None

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.was_compiled.add(torch.compiler.is_compiling())
        loss = self.net(data_batch).pow(2).mean()
        return {"loss": loss, "prog": {"own": loss}}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        return self.net(data_batch).mean()

    def validation_end(self, outputs: Any) -> Any:
        return {"val_loss": torch.stack(outputs).mean()}

    def forward(self, x: Any) -> Any:
        return self.net(x)

    def configure_optimizers(self) -> Any:
        self.optimizer = self.kind(self.parameters(), lr=0.05, **self.options)
        return self.optimizer

    @property
    def tng_dataloader(self) -> Any:
        return [torch.randn(3, 4, generator=torch.Generator().manual_seed(i)) for i in range(6)]

    @property
    def val_dataloader(self) -> Any:
        return self.tng_dataloader[:2]

    @property
    def test_dataloader(self) -> Any:
        return self.tng_dataloader[2:5]


def trained(tmp_path: Path, model: Dropping | None = None, **options: Any) -> tuple[list[Tensor], Dropping]:
    model = Dropping() if model is None else model
    assert quiet_trainer(tmp_path, **{"max_nb_epochs": 2, **options}).fit(model) == 1
    return [p.detach().clone() for p in model.parameters()], model


def assert_close(a: list[Tensor], b: list[Tensor]) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def assert_same(a: list[Tensor], b: list[Tensor]) -> None:
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


class SaveAt(Callback):
    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_batch_end(self, run: Any) -> None:
        if run.progress.global_step + 1 == self.step:
            run.save(self.path)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"accumulate_grad_batches": 2, "gradient_clip": 0.1}, id="accumulated and clipped"),
        pytest.param({}, id="plain", marks=pytest.mark.slow),
        pytest.param({"precision": "bf16"}, id="bf16", marks=pytest.mark.slow),
        pytest.param({"precision": "16"}, id="16", marks=pytest.mark.slow),
    ],
)
def test_compiled_steps_train_as_plain_ones_do(tmp_path: Path, options: dict[str, Any]) -> None:
    plain, _ = trained(tmp_path, **options)
    compiled, model = trained(tmp_path, compile={"backend": "aot_eager"}, **options)
    assert model.was_compiled == {True}
    torch.testing.assert_close(plain, compiled, rtol=1e-2 if "precision" in options else 1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # inductor's own
def test_compile_true_uses_torch_s_compiler_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "middle.ckpt"
    few = {"compile": True, "check_val_every_n_epoch": 9}  # compiling validation takes as long again
    whole, model = trained(tmp_path, callbacks=[SaveAt(path, 8)], **few)
    assert model.was_compiled == {True}
    torch.compiler.reset()
    resumed, _ = trained(tmp_path, resume=path, **few)
    assert_same(whole, resumed)


def test_a_checkpoint_of_a_compiled_fit_has_the_module_s_own_names(tmp_path: Path) -> None:
    path = tmp_path / "middle.ckpt"
    trained(tmp_path, compile={"backend": "eager"}, callbacks=[SaveAt(path, 4)])
    kept = torch.load(path, weights_only=True)
    assert list(kept["state_dict"]) == list(Dropping().state_dict())
    assert_same(trained(tmp_path, resume=path)[0], trained(tmp_path)[0])


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_what_runs_outside_of_a_fit_is_compiled_too(tmp_path: Path, stage: str) -> None:
    graphs: list[Any] = []

    def counting(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    plain = getattr(quiet_trainer(tmp_path), stage)(Dropping())
    compiled = getattr(quiet_trainer(tmp_path, compile={"backend": counting}), stage)(Dropping())
    # the first is of what tries the compiler
    assert any("linear" in str(graph.code) for graph in graphs[1:])
    torch.testing.assert_close(compiled, plain, rtol=0, atol=0)


WITHOUT_COMPILER = """
from tests.trainer.test_speed import Dropping, trained
from pathlib import Path
import torch
weights, model = trained(Path("."), compile=True)
assert model.was_compiled == {False}
plain, _ = trained(Path("."))
assert all(torch.equal(a, b) for a, b in zip(weights, plain))
"""


def test_where_nothing_can_be_compiled_one_line_says_so_and_steps_run_uncompiled(tmp_path: Path) -> None:
    root = str(Path(__file__).parents[2])
    environment = {"PATH": str(tmp_path), "CXX": "no-such-compiler", "PYTHONPATH": root, "HOME": str(tmp_path)}
    environment["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / "cache")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("[not-compiled]") == 1, done.stderr
    assert "the steps run uncompiled" in done.stderr


def test_a_value_of_compile_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="compile must be True, False or a dict"):
        quiet_trainer(tmp_path, compile="fast")


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_fused_optimizers_give_the_same_to_rounding(tmp_path: Path, kind: Any) -> None:
    plain, left_alone = trained(tmp_path, Dropping(kind))
    fused, model = trained(tmp_path, Dropping(kind), fused_optimizers=True)
    assert left_alone.optimizer.param_groups[0]["fused"] is None
    assert model.optimizer.param_groups[0]["fused"] is True
    assert_close(plain, fused)


@pytest.mark.parametrize("options", [{"fused": False}, {"foreach": True}])
def test_what_the_user_chose_stays(tmp_path: Path, options: dict[str, Any]) -> None:
    model = Dropping(torch.optim.Adam, **options)
    chosen = {name: bool(model.options.get(name)) for name in options}
    trained(tmp_path, model, fused_optimizers=True)
    assert {name: model.optimizer.param_groups[0][name] for name in options} == chosen
    assert model.optimizer.param_groups[0]["fused"] is not True


def test_an_optimizer_without_a_fused_step_is_left_unchanged(tmp_path: Path) -> None:
    assert_same(
        trained(tmp_path, Dropping(torch.optim.RMSprop), fused_optimizers=True)[0],
        trained(tmp_path, Dropping(torch.optim.RMSprop))[0],
    )


@pytest.mark.parametrize("before", [False, True])
def test_a_fused_fit_resumes_from_a_checkpoint_written_with_or_without(tmp_path: Path, before: bool) -> None:
    path = tmp_path / "middle.ckpt"
    whole, _ = trained(tmp_path, fused_optimizers=before, callbacks=[SaveAt(path, 7)])
    resumed, model = trained(tmp_path, fused_optimizers=True, resume=path)
    assert model.optimizer.param_groups[0]["fused"] is True
    assert_close(whole, resumed)
    if before:
        assert_same(whole, resumed)


@pytest.mark.filterwarnings("ignore")  # the profiler's own
def test_profile_writes_a_trace_of_a_few_steps(tmp_path: Path) -> None:
    trained(tmp_path, profile=True, max_nb_epochs=3)
    (trace,) = tmp_path.rglob("trace.json")
    assert trace.parent.name.startswith("version_")
    names = [event.get("name", "") for event in json.loads(trace.read_text())["traceEvents"]]
    assert names.count("Optimizer.step#Adam.step") == 5


@pytest.mark.filterwarnings("ignore")
def test_a_profile_of_a_short_fit_or_without_a_folder_hurts_nothing(tmp_path: Path, capfd: Any) -> None:
    trained(tmp_path, profile=True, max_nb_steps=2)
    assert not list(tmp_path.rglob("trace.json"))
    trained(tmp_path, profile=True, experiment=False, max_nb_epochs=3)
    assert "[no-profile]" in capfd.readouterr().err
