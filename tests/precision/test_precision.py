"""What each precision does to weights, batches and steps, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pytorch_lightning import Trainer
from pytorch_lightning.errors import MisconfigurationException
from tests.recorder import Recorder, quiet_trainer


class Typed(Recorder):
    """Notes the dtypes that it sees."""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        (x,) = data_batch
        product = x @ self.weight.reshape(1, 1)
        self.note("dtypes", x.dtype, self.weight.dtype, product.dtype)
        return (product.float() - 3.0).pow(2).mean()

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.note("validation", (data_batch[0] @ self.weight.reshape(1, 1)).dtype)
        return super().validation_step(data_batch, batch_nb)


@pytest.mark.parametrize(
    ("precision", "batch", "weight", "product"),
    [
        ("32", torch.float32, torch.float32, torch.float32),
        ("64", torch.float64, torch.float64, torch.float64),
        ("bf16", torch.float32, torch.float32, torch.bfloat16),
        ("16", torch.float32, torch.float32, torch.float16),
        ("bf16-true", torch.bfloat16, torch.bfloat16, torch.bfloat16),
        ("16-true", torch.float16, torch.float16, torch.float16),
    ],
)
def test_dtypes(tmp_path: Path, precision: str, batch: Any, weight: Any, product: Any) -> None:
    model = Typed(lr=0.001)
    trainer = quiet_trainer(tmp_path, precision=precision)
    trainer.fit(model)
    assert {call[1:] for call in model.calls if call[0] == "dtypes"} == {(batch, weight, product)}
    assert {call[1] for call in model.calls if call[0] == "validation"} == {product}
    assert model.dtype == weight
    assert trainer.use_amp == (precision == "16")


def test_32_leaves_a_float64_model_alone(tmp_path: Path) -> None:
    model = Recorder().double()
    quiet_trainer(tmp_path).fit(model)
    assert model.dtype == torch.float64


@pytest.mark.parametrize(("level", "precision"), [("O0", "32"), ("O1", "16"), ("O2", "16"), ("O3", "16-true")])
def test_use_amp_is_a_precision(level: str, precision: str) -> None:
    assert Trainer(use_amp=True, amp_level=level).config.precision == precision
    assert Trainer(amp_level=level).config.precision == "32"


class Overflowing(Recorder):
    """Its gradient isn't finite in the second of four steps."""

    optimizer_options: dict[str, Any] = {}

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        loss = (self.weight - 3.0).pow(2).sum()
        if batch_nb == 1:
            self.weight.register_hook(lambda grad: grad * float("inf"))
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam([self.weight], 1.0, **self.optimizer_options)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


@pytest.mark.parametrize("fused", [False, True])
def test_a_skipped_step_steps_no_schedule_and_counts_as_none(tmp_path: Path, fused: bool) -> None:
    class Optimized(Overflowing):
        optimizer_options = {"fused": fused}

        def on_batch_start(self, data_batch: Any) -> None:
            for hook in list(self.weight._backward_hooks or {}):
                del self.weight._backward_hooks[hook]
            self.note("before", self.weight.item(), self.trainer.optimizers[0].param_groups[0]["lr"])

    model = Optimized()
    trainer = quiet_trainer(tmp_path, precision="16")
    trainer.fit(model)
    before = [call[1:] for call in model.calls if call[0] == "before"]
    assert [rate for _, rate in before] == [1.0, 0.5, 0.5, 0.25]
    assert before[1][0] == before[2][0] != before[3][0]
    assert trainer.progress.nb_optimizer_steps == 3


def test_an_epoch_without_a_single_step_steps_no_schedule(tmp_path: Path) -> None:
    class Never(Recorder):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            if not self._backward_hooks_set:
                self.weight.register_hook(lambda grad: grad * float("inf"))
                self._backward_hooks_set = True
            return (self.weight - 3.0).pow(2).sum()

        _backward_hooks_set = False

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD([self.weight], 1.0)
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]

    model = Never()
    trainer = quiet_trainer(tmp_path, precision="16", max_nb_epochs=2)
    trainer.fit(model)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 1.0
    assert model.weight.item() == 0.0


def test_a_schedule_waits_in_an_epoch_without_a_step_after_one_with_steps(tmp_path: Path) -> None:
    class Late(Recorder):
        def on_epoch_start(self) -> None:
            if self.current_epoch == 1:
                self.weight.register_hook(lambda grad: grad * float("inf"))

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD([self.weight], 0.1)
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]

    trainer = quiet_trainer(tmp_path, precision="16", max_nb_epochs=3)
    trainer.fit(Late())
    assert trainer.progress.nb_optimizer_steps == 4
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.05


def test_a_skipped_step_steps_no_plateau_of_steps(tmp_path: Path) -> None:
    class Plateau(Overflowing):
        def on_batch_end(self) -> None:
            for hook in list(self.weight._backward_hooks or {}):
                del self.weight._backward_hooks[hook]

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD([self.weight], 0.1)
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
            return [optimizer], [{"scheduler": schedule, "interval": "step", "monitor": "tng_loss"}]

    trainer = quiet_trainer(tmp_path, precision="16")
    trainer.fit(Plateau())
    assert trainer.progress.nb_optimizer_steps == trainer.lr_schedulers[0].last_epoch == 3


def test_the_scale_continues_after_a_resume(tmp_path: Path) -> None:
    first = quiet_trainer(tmp_path, precision="16", max_nb_steps=3)
    first.fit(Overflowing())
    first.save_checkpoint(tmp_path / "x.ckpt")
    scale = torch.load(tmp_path / "x.ckpt", weights_only=True)["parts"]["precision"]["scale"]
    assert scale < 2.0**16
    rest = quiet_trainer(tmp_path, precision="16", max_nb_steps=3, resume=tmp_path / "x.ckpt")
    rest.fit(Overflowing())
    rest.save_checkpoint(tmp_path / "y.ckpt")
    assert torch.load(tmp_path / "y.ckpt", weights_only=True)["parts"]["precision"]["scale"] == scale


@pytest.mark.parametrize(
    ("precision", "optimizer", "message"),
    [
        ("16", torch.optim.LBFGS, "closure"),
        ("16-true", torch.optim.Adam, "eps=1e-08 divides by zero in float16"),
        ("16-true", torch.optim.AdamW, "eps"),
    ],
)
def test_what_a_precision_refuses(tmp_path: Path, precision: str, optimizer: Any, message: str) -> None:
    model = type("Refused", (Recorder,), {"configure_optimizers": lambda self: optimizer(self.parameters())})()
    with pytest.raises(MisconfigurationException, match=rf"precision='{precision}'.*{message}"):
        quiet_trainer(tmp_path, precision=precision).fit(model)
    assert model.calls == []


def test_16_true_takes_an_adam_whose_eps_is_large_enough(tmp_path: Path) -> None:
    model = type(
        "Eps", (Recorder,), {"configure_optimizers": lambda self: torch.optim.Adam(self.parameters(), 0.01, eps=1e-4)}
    )()
    assert quiet_trainer(tmp_path, precision="16-true").fit(model) == 1
    assert bool(torch.isfinite(model.weight))
