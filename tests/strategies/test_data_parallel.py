"""'dp': a fit over several devices of one process gives the numbers of one device."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.errors import FitError, MisconfigurationException
from pytorch_lightning.strategies import DataParallel
from tests.recorder import quiet_trainer, rows_of

PLACES = [
    pytest.param({"distributed_backend": DataParallel(places=2)}, id="two places on the CPU"),
    pytest.param({"distributed_backend": DataParallel(places=3)}, id="three places on the CPU"),
    pytest.param(
        {"distributed_backend": "dp", "gpus": -1},
        id="GPUs",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs"),
        ],
    ),
]


class Net(LightningModule):
    """Batches of 5, 5 and 2 samples, so that chunks have unequal sizes. Returns what the era's models did."""

    def __init__(self, norm: bool = False, counted: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8) if norm else nn.Tanh(), nn.Linear(8, 1))
        self.counted = counted
        self.outputs: list[Any] = []

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        errors = (self.body(x) - y).pow(2)
        if self.counted:  # the mean over some of the samples
            chosen = x[:, 0] > 0
            count = chosen.sum()
            loss = errors[chosen].sum() / count.clamp(min=1)
            return {"loss": loss, "loss_count": count}
        loss = errors.mean()
        if self.trainer.use_dp:
            loss = loss.unsqueeze(0)
        return {"loss": loss, "prog": {"error": loss, "batch_nb": batch_nb}}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        x, y = data_batch
        out = self.body(x)
        return {"val_loss": (out - y).pow(2).mean(), "out": out, "right": (out > y).sum()}

    def validation_end(self, outputs: Any) -> Any:
        self.outputs = outputs
        return {
            "val_loss": sum(o["val_loss"] for o in outputs) / len(outputs),
            "right": sum(o["right"] for o in outputs),
        }

    def predict_step(self, data_batch: Any, batch_nb: int) -> Tensor:
        return self.body(data_batch[0])

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), 0.05)]

    def loader(self) -> Any:
        x = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(x, x[:, :1] * 2), batch_size=5)

    tng_dataloader = val_dataloader = test_dataloader = property(loader)  # type: ignore[assignment]


class TwoParts(Net):
    """A step of three arguments: one loss per optimizer."""

    def training_step(self, data_batch: Any, batch_nb: int, optimizer_i: int) -> Any:  # type: ignore[override]
        return super().training_step(data_batch, batch_nb)

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.body[i].parameters(), 0.05) for i in (0, 2)]


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("make", "options"),
    [
        (Net, {}),
        (lambda: Net(counted=True), {"accumulate_grad_batches": 2}),
        (TwoParts, {"virtual_ranks": 2}),
        (Net, {"precision": "bf16"}),
    ],
    ids=["plain", "counted and accumulated", "three arguments and virtual ranks", "bf16"],
)
def test_a_fit_gives_the_numbers_of_one_device(tmp_path: Path, place: Any, make: Any, options: Any) -> None:
    one, dp = make(), make()
    options = {**options, "max_nb_epochs": 2, "add_log_row_interval": 1}
    alone, trainer = quiet_trainer(tmp_path, **options), quiet_trainer(tmp_path, **options, **place)
    alone.fit(one)
    trainer.fit(dp)
    assert trainer.use_dp
    assert not trainer.use_ddp
    close = {"rtol": 1e-2, "atol": 1e-2} if "precision" in options else {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(weights(dp), weights(one), **close)
    for ours, theirs in zip(dp.outputs, one.outputs, strict=True):
        torch.testing.assert_close(ours["out"].cpu(), theirs["out"].cpu(), **close)
    name = type(one).__name__
    here, there = rows_of(tmp_path, name, 1), rows_of(tmp_path, name, 0)
    assert [list(row) for row in here] == [list(row) for row in there]
    for ours, theirs in zip(here, there, strict=True):
        for key in set(ours) - {"created_at"}:
            if not key.startswith("gpu_"):
                assert float(ours[key] or 0) == pytest.approx(float(theirs[key] or 0), rel=2e-2, abs=1e-4), key
    assert trainer.test()["val_loss"] == pytest.approx(alone.test()["val_loss"], rel=2e-2)
    for ours, theirs in zip(trainer.predict(), alone.predict(), strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, **close)


@pytest.mark.parametrize("place", PLACES[:1] + PLACES[2:])
def test_batchnorm_keeps_the_statistics_of_the_first_chunk(tmp_path: Path, place: Any) -> None:
    model = Net(norm=True)
    norm = nn.BatchNorm1d(8)
    x = next(iter(model.tng_dataloader))[0][:3]  # the first chunk of five
    with torch.no_grad():
        norm(model.body[0](x))
    quiet_trainer(tmp_path, train_percent_check=0.1, **place).fit(model)
    torch.testing.assert_close(model.body[1].running_mean.cpu(), norm.running_mean)
    assert model.body[1].num_batches_tracked == 1


def test_torch_replicas_run_in_their_threads_with_our_autocast() -> None:
    """The one part that needs GPUs, with torch's own functions looking on: what a thread gets is what it is given."""
    from pytorch_lightning.strategies.data_parallel import _InAutocast

    seen: list[Any] = []

    class Look(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
            return x

    for dtype in (torch.bfloat16, None):
        _InAutocast(Look(), "cpu", dtype)(torch.ones(1))
    assert seen == [torch.bfloat16, None]


def test_dp_is_one_process() -> None:
    for backend in ("dp", DataParallel(places=2)):
        with pytest.raises(MisconfigurationException, match=r"'dp' is one process; received nb_processes=2. Use 'ddp'"):
            Trainer(distributed_backend=backend, nb_processes=2)


def test_a_loss_of_many_elements_is_refused_as_without_dp(tmp_path: Path) -> None:
    class Many(Net):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            return self.body(data_batch[0])

    with pytest.raises(FitError, match=r"a loss of shape \(3, 1\); expected one element"):
        quiet_trainer(tmp_path, distributed_backend=DataParallel(places=2)).fit(Many())


def test_one_device_under_dp_is_a_plain_run(tmp_path: Path) -> None:
    model, plain = Net(), Net()
    quiet_trainer(tmp_path, distributed_backend="dp").fit(model)
    quiet_trainer(tmp_path).fit(plain)
    assert all(torch.equal(a, b) for a, b in zip(weights(model).values(), weights(plain).values(), strict=True))
