"""What steps may not return: the first batch that shows it ends the fit, and the message says which batch."""

from typing import Any

import pytest
import torch

from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.errors import FitError
from tests.mistakes.honest import Honest, Refusals, Trained, planted, trainer_in

PLACE = "(epoch 0, batch_nb 0)"
LOSS = ("training_step of Net returned", "Return {'loss': loss}", PLACE)


def loss_of(model: Any, batch: Any) -> Any:
    return model(batch[0]).pow(2).mean()


def without_gradients(model: Any, batch: Any) -> Any:
    with torch.no_grad():
        return loss_of(model, batch)


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (lambda m, b: 1.0, ("1.0 (float)", *LOSS)),
        (lambda m, b: "x", ("'x' (str)", *LOSS)),
        (lambda m, b: {}, ("the keys []", *LOSS)),
        (lambda m, b: {"los": loss_of(m, b)}, ("the keys ['los']", *LOSS)),
        (lambda m, b: {"loss": None}, ("'loss': None", *LOSS)),
        (lambda m, b: {"loss": loss_of(m, b).item()}, ("(float)", *LOSS)),
        (lambda m, b: (loss_of(m, b), {}), ("(tuple)", *LOSS)),
        (lambda m, b: [loss_of(m, b)], ("(list)", *LOSS)),
        (lambda m, b: m(b[0]), ("a loss of shape (2, 1)", "expected one element", "Return loss.mean()", PLACE)),
        (lambda m, b: loss_of(m, b).detach(), ("a loss without a graph", "Don't detach it", PLACE)),
        (without_gradients, ("a loss without a graph", "torch.no_grad()", PLACE)),
        (lambda m, b: loss_of(m, b) * float("nan"), ("isn't finite (nan)", "lr_0=0.1", "stop_on_nan=False", PLACE)),
        (lambda m, b: loss_of(m, b) / 0, ("isn't finite (inf)", "gradient_clip=1.0", PLACE)),
        (lambda m, b: {"loss": loss_of(m, b), "prog": 3}, ("'prog': 3 (int)", "a dict of numbers", PLACE)),
        (lambda m, b: {"loss": loss_of(m, b), "tqdm_metrics": [1]}, ("'prog': [1] (list)", "Return {'loss'", PLACE)),
        (lambda m, b: {"loss": loss_of(m, b), "prog": {"a": m(b[0])}}, ("under 'a'", "shape (2, 1)", "its mean")),
        (lambda m, b: {"loss": loss_of(m, b), "prog": {"a": [1]}}, ("under 'a'", "[1] (list)", "leave it out")),
        (lambda m, b: {"loss": loss_of(m, b), "loss_count": -1}, ("'loss_count': -1 (int)", "negative", PLACE)),
        (lambda m, b: {"loss": loss_of(m, b), "loss_count": "2"}, ("'loss_count': '2' (str)", "Return", PLACE)),
        (lambda m, b: {"loss": loss_of(m, b), "loss_count": torch.ones(2)}, ("Tensor of shape (2,)", "Return", PLACE)),
        (lambda m, b: {"loss": loss_of(m, b), "loss_count": float("inf")}, ("inf (float)", "Return", PLACE)),
    ],
)
def test_what_training_step_may_not_return(refusal: Refusals, returned: Any, words: tuple[str, ...]) -> None:
    nb_calls = 0

    def training_step(self: Any, data_batch: Any, batch_nb: int) -> Any:
        nonlocal nb_calls
        nb_calls += 1
        return returned(self, data_batch)

    model = planted(training_step=training_step)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(FitError) as caught:
        trainer_in(refusal.folder).fit(model)
    text = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    for word in (*words, PLACE):
        assert word in text, text
    assert text.count(PLACE) == 1, "said by the message or by a note"
    assert refusal.capsys.readouterr() == ("", "")
    assert nb_calls == 1
    if "prog" not in text:  # a row is written after the step
        assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


END = "validation_end of Net"


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ([1], (f"{END} returned [1] (list)", "expected a dict", "Return {'val_loss': mean}")),
        (1.0, (f"{END} returned 1.0 (float)", "expected a dict", "Return {'val_loss': mean}")),
        (torch.ones(2), (f"{END} returned a Tensor of shape (2,)", "expected a dict", "Return {'val_loss': mean}")),
        ({"a": torch.ones(2)}, (f"{END} gave a Tensor of shape (2,) under 'a'", "expected a number", "its mean")),
        ({"a": [1]}, (f"{END} gave [1] (list) under 'a'", "expected a number", "leave it out")),
        ({"a": object()}, (f"{END} gave an object under 'a'", "expected a number", "leave it out")),
    ],
)
def test_what_validation_end_may_not_return_is_known_before_training(
    refusal: Refusals, returned: Any, words: tuple[str, ...]
) -> None:
    model = planted(validation_end=lambda self, outputs: returned)
    refusal.of(lambda: trainer_in(refusal.folder).fit(model), words, FitError)
    assert model.nb_steps == 0


def test_a_row_that_is_no_dict(refusal: Refusals) -> None:
    model = planted(update_tng_log_metrics=lambda self, logs: None)
    words = ("update_tng_log_metrics returned None", "expected the dict to log", "Return logs", PLACE)
    refusal.of(lambda: trainer_in(refusal.folder).fit(model), words, FitError)


# ---------------------------------------------------------------------------------------------- monitored names
def plateau(self: Any) -> Any:
    optimizer = torch.optim.SGD(self.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    return [optimizer], [{"scheduler": scheduler, "monitor": "val_los"}]


@pytest.mark.parametrize(
    ("who", "options", "attributes"),
    [
        ("EarlyStopping", lambda folder: {"early_stop_callback": EarlyStopping("val_los")}, {}),
        ("ModelCheckpoint", lambda f: {"checkpoint_callback": ModelCheckpoint(f, "val_los", save_best_only=True)}, {}),
        ("ReduceLROnPlateau", lambda folder: {}, {"configure_optimizers": plateau}),
    ],
)
def test_a_monitored_name_that_nothing_gives(refusal: Refusals, who: str, options: Any, attributes: Any) -> None:
    model = planted(**attributes)
    words = (
        f"{who} needs the metric 'val_los'",
        "Available: tng_loss, tng_loss_epoch, val_loss",
        "Did you mean 'val_loss'?",
        "Return",
    )
    refusal.of(lambda: trainer_in(refusal.folder, **options(refusal.folder)).fit(model), words, FitError)
    assert model.nb_steps == 1, "known once the first batch has given its own names"


def test_all_monitored_names_that_nothing_gives_are_one_error(refusal: Refusals) -> None:
    keep = ModelCheckpoint(refusal.folder, "b", save_top_k=2)
    words = ("EarlyStopping needs the metric 'a' and ModelCheckpoint needs the metric 'b'", "Available: ")
    refusal.of(
        lambda: trainer_in(
            refusal.folder, early_stop_callback=EarlyStopping("a"), checkpoint_callback=keep
        ).fit(Honest()), words, FitError,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["val_loss", "lr_0", "epoch"])
def test_early_stopping_on_what_no_validation_gives(refusal: Refusals, name: str) -> None:
    trainer = trainer_in(refusal.folder, early_stop_callback=EarlyStopping(name), silence=["no-validation"])
    words = (f"EarlyStopping needs the metric '{name}'", "Available: tng_loss, tng_loss_epoch.", "monitor one of these")
    refusal.of(lambda: trainer.fit(planted(Trained)), words, FitError)


def test_a_name_that_is_not_needed_is_no_mistake(refusal: Refusals) -> None:
    trainer = trainer_in(refusal.folder, checkpoint_callback=ModelCheckpoint(refusal.folder / "kept", "nothing"))
    assert trainer.fit(Honest()) == 1
    assert refusal.capsys.readouterr() == ("", "")
    assert list((refusal.folder / "kept").iterdir())
