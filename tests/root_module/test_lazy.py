"""Lazy layers, which learn their sizes from the first batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.errors import MisconfigurationException

BATCHES = [torch.randn(4, 3, generator=torch.Generator().manual_seed(n)) for n in range(6)]
BEGUN: list[dict[str, Tensor]] = []
"""The weights that each fit's first batch made."""


class Lazy(LightningModule):
    def __init__(self, kind: str = "SGD") -> None:
        super().__init__()
        self.kind = kind
        self.hidden, self.norm, self.last = nn.LazyLinear(5), nn.LazyBatchNorm1d(), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.hidden(x)))

    def training_step(self, data_batch: Tensor, batch_nb: int) -> Any:
        loss = self(data_batch).pow(2).mean()
        if self.global_step == 0:
            BEGUN.append({name: value.detach().clone() for name, value in self.state_dict().items()})
        return {"loss": loss}

    def configure_optimizers(self) -> Any:
        return getattr(torch.optim, self.kind)(self.parameters(), lr=0.1)

    @property
    def tng_dataloader(self) -> Any:
        return BATCHES


def trainer(folder: Path, **options: Any) -> Trainer:
    fixed: dict[str, Any] = {
        "progress_bar": False,
        "max_nb_epochs": 1,
        "default_save_path": folder,
        "silence": ("no-validation", "not-shuffled", "first-save"),
        "seed": 3,
    }
    return Trainer(**{**fixed, **options})


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_lazy_layers_train_with_default_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """As in a loop by hand, from the weights that the first batch made."""
    BEGUN.clear()
    model, by_hand = Lazy(kind), Lazy(kind)
    trainer(tmp_path).fit(model)
    shown = capsys.readouterr().out
    assert "hidden  LazyLinear       ?\n" in shown
    assert "6 parameters, 6 trainable ('?': lazy layers" in shown
    by_hand.load_state_dict(BEGUN[0])
    optimizer = by_hand.configure_optimizers()
    for batch in BATCHES:
        optimizer.zero_grad()
        by_hand(batch).pow(2).mean().backward()
        optimizer.step()
    for (name, value), expected in zip(model.named_parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(value, expected), name
    model.summarize()
    assert "36 parameters, 36 trainable\n" in capsys.readouterr().out


def test_a_run_with_lazy_layers_is_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, first, second = Lazy("Adam"), Lazy("Adam"), Lazy("Adam")
    first.load_state_dict(whole.state_dict())
    second.load_state_dict(whole.state_dict())
    trainer(tmp_path / "whole").fit(whole)
    trainer(tmp_path, max_nb_steps=2, save_every_nb_batches=2).fit(first)
    capsys.readouterr()
    trainer(tmp_path, resume="auto").fit(second)
    assert capsys.readouterr().err == ""
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize(
    "options",
    [{"nb_processes": 2}, {"nb_processes": 2, "distributed_backend": "fsdp"}, {"virtual_ranks": 2}],
    ids=["ddp", "fsdp", "virtual ranks"],
)
def test_lazy_layers_are_refused_where_sizes_must_be_known_until_they_have_run(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    model, fit = Lazy(), trainer(tmp_path, experiment=False, print_weights_summary=False, **options).fit
    with pytest.raises(MisconfigurationException, match=r"^lazy layers of Lazy don't know their sizes yet") as caught:
        fit(model)
    assert "Run the model once on a batch before fit: with torch.no_grad(): model(batch)." in str(caught.value)
    with torch.no_grad():
        model(BATCHES[0])
    before = model.hidden.weight.detach().clone()
    assert fit(model) == 1
    assert not torch.equal(model.hidden.weight, before)
