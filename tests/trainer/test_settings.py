"""Options and names of 2019 on a trainer, and what a test leaves there."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from test_tube import Experiment
from torch import nn

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from pytorch_lightning.errors import CheckpointError, MisconfigurationException
from tests.recorder import quiet_trainer

NB_BATCHES = 6


class Counting(torch.optim.SGD):
    """Counts its steps, and notes after which batch each came."""

    model: Any

    def step(self, closure: Any = None) -> Any:
        self.model.steps.append((self.model.current_epoch, self.model.trainer.batch_nb))
        return super().step(closure)


class Model(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(2, 1)
        self.steps: list[Any] = []
        self.nb_validated = 0

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"loss": self.layer(data_batch).pow(2).mean()}

    def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
        self.nb_validated += 1
        return {"val_loss": self.layer(data_batch).pow(2).mean(), "index": torch.tensor([float(batch_nb)])}

    def test_step(self, data_batch: Any, batch_nb: int) -> Any:
        return {"test_loss": self.layer(data_batch).pow(2).mean()}

    def test_end(self, outputs: Any) -> Any:
        return {"test_loss": torch.stack([o["test_loss"] for o in outputs]).mean()}

    def configure_optimizers(self) -> Any:
        optimizer = Counting(self.parameters(), 0.1)
        optimizer.model = self
        return [optimizer]

    def batches(self) -> Any:
        return [torch.full((4, 2), float(n)) for n in range(NB_BATCHES)]

    @property
    def tng_dataloader(self) -> Any:
        return self.batches()

    @property
    def val_dataloader(self) -> Any:
        return self.batches()[:4]

    @property
    def test_dataloader(self) -> Any:
        return self.batches()[:3]


# ---------------------------------------------------------------------------------------------- options
@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [
        ("accumulate_grad_batches", 3, lambda m, t: [b for _, b in m.steps] == [2, 5]),
        ("max_nb_epochs", 3, lambda m, t: len(m.steps) == 3 * NB_BATCHES),
        ("train_percent_check", 0.5, lambda m, t: len(m.steps) == 3),
        ("overfit_pct", 0.5, lambda m, t: len(m.steps) == 3),
        ("val_percent_check", 0.5, lambda m, t: m.nb_validated == 2),
        ("val_check_interval", 0.5, lambda m, t: m.nb_validated == 8),
        ("fast_dev_run", True, lambda m, t: len(m.steps) == 1),
        ("max_nb_steps", 4, lambda m, t: len(m.steps) == 4),
        ("max_nb_epochs", 2, lambda m, t: t.current_epoch == 2),
        ("seed", 11, lambda m, t: t.seed == 11),
    ],
)
def test_an_option_that_is_assigned_takes_effect_at_the_next_fit(
    tmp_path: Path, name: str, value: Any, seen: Any
) -> None:
    trainer, model = quiet_trainer(tmp_path, nb_sanity_val_steps=0), Model()
    setattr(trainer, name, value)
    assert getattr(trainer, name) == value
    trainer.fit(model)
    assert seen(model, trainer)
    other = Model()
    quiet_trainer(tmp_path, nb_sanity_val_steps=0).fit(other)
    assert name == "seed" or not seen(other, trainer) or name == "max_nb_epochs"


def test_callbacks_experiments_and_other_spellings_can_be_assigned(tmp_path: Path) -> None:
    trainer, model = quiet_trainer(tmp_path, experiment=False), Model()
    trainer.checkpoint_callback = ModelCheckpoint(tmp_path / "kept")
    trainer.logger = Experiment(save_dir=str(tmp_path), name="later")
    trainer.gradient_clip_val = 0.5
    trainer.fit(model)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["_ckpt_epoch_1.ckpt"]
    assert (tmp_path / "later" / "version_0" / "metrics.csv").exists()
    assert (trainer.gradient_clip, trainer.gradient_clip_val, trainer.logger) == (0.5, 0.5, trainer.experiment)


def test_a_value_that_an_option_cannot_have_is_refused_and_forgotten(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path)
    with pytest.raises(MisconfigurationException, match="max_nb_epochs must be a whole number"):
        trainer.max_nb_epochs = 0
    assert trainer.max_nb_epochs == 1


@pytest.mark.parametrize("name", ["accumulate_grad_batches", "max_nb_epochs", "gradient_clip_val"])
def test_an_option_cannot_change_in_the_middle_of_a_fit(tmp_path: Path, name: str) -> None:
    class Changing(Model):
        def on_epoch_start(self) -> None:
            setattr(self.trainer, name, 2)

    trainer, model = quiet_trainer(tmp_path), Changing()
    with pytest.raises(MisconfigurationException, match=f"{name} can't be changed in the middle of a fit"):
        trainer.fit(model)
    assert not model.steps
    setattr(trainer, name, 2)  # afterwards it can


def test_a_subclass_may_have_attributes_of_its_own(tmp_path: Path) -> None:
    class Own(Trainer):
        def __init__(self, note: str, **options: Any) -> None:
            self.note = note
            super().__init__(**options)

    trainer = Own("mine", default_save_path=tmp_path, max_nb_epochs=2)
    trainer.other = 3
    assert (trainer.note, trainer.other, trainer.max_nb_epochs) == ("mine", 3, 2)
    with pytest.raises(AttributeError, match="Own has no attribute 'nothing'"):
        trainer.nothing


# ---------------------------------------------------------------------------------------------- names
def test_the_loaders_of_the_model(tmp_path: Path) -> None:
    trainer, model = quiet_trainer(tmp_path), Model()
    assert (trainer.tng_dataloader, trainer.val_dataloader, trainer.test_dataloader, trainer.on_gpu) == (None,) * 4
    trainer.fit(model)
    assert [len(loader) for loader in (trainer.tng_dataloader, trainer.val_dataloader, trainer.test_dataloader)] == [
        NB_BATCHES,
        4,
        3,
    ]
    assert trainer.on_gpu is False
    assert (trainer.accumulate_grad_batches, trainer.val_check_interval) == (1, 1.0)


def test_what_a_test_gave_is_shown_beside_the_validation(tmp_path: Path) -> None:
    trainer, model = quiet_trainer(tmp_path), Model()
    trainer.fit(model)
    before = dict(trainer.tng_tqdm_dic)
    result = trainer.test()
    assert trainer.tng_tqdm_dic == {**before, **result}
    assert {"val_loss", "test_loss", "tng_loss"} <= set(trainer.tng_tqdm_dic)
    fresh = quiet_trainer(tmp_path)
    assert fresh.test(model) == result
    assert fresh.tng_tqdm_dic["test_loss"] == result["test_loss"]
    with torch.no_grad():
        model.layer.weight.mul_(2)
    assert trainer.tng_tqdm_dic["val_loss"] != trainer.validate()["val_loss"]
    assert trainer.tng_tqdm_dic["val_loss"] == trainer.validate()["val_loss"]
    trainer.fit(model)
    assert "test_loss" not in trainer.tng_tqdm_dic


def test_the_next_validation_of_a_fit_takes_the_place_of_one_by_hand(tmp_path: Path) -> None:
    class Looking(Model):
        def on_epoch_end(self) -> None:
            shown.append(self.trainer.tng_tqdm_dic["val_loss"])
            if self.current_epoch == 0:
                by_hand.append(self.trainer.validate(ckpt=first)["val_loss"])
                shown.append(self.trainer.tng_tqdm_dic["val_loss"])

    shown: list[float] = []
    by_hand: list[float] = []
    first = tmp_path / "first.ckpt"
    start = quiet_trainer(tmp_path, max_nb_steps=1)
    start.fit(Model())
    start.save_checkpoint(first)
    quiet_trainer(tmp_path, max_nb_epochs=2).fit(Looking())
    assert shown[1] == by_hand[0] != shown[0]
    assert shown[2] not in (shown[0], shown[1])


# ---------------------------------------------------------------------------------------------- hpc_save, hpc_load
def test_a_fit_goes_on_from_what_hpc_save_wrote(tmp_path: Path) -> None:
    whole = Model()
    quiet_trainer(tmp_path, max_nb_epochs=3).fit(whole)
    first, folder = Model(), tmp_path / "hpc"
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2, experiment=False)
    trainer.fit(first)
    exp = Experiment(save_dir=str(tmp_path), name="exp")
    assert trainer.hpc_save(folder, exp) == f"{folder}/hpc_ckpt_1.ckpt"
    assert trainer.hpc_save(str(folder), exp) == f"{folder}/hpc_ckpt_2.ckpt"
    (folder / "_ckpt_epoch_7.ckpt").touch()  # a number of something else
    (folder / "hpc_ckpt_10.ckpt").write_bytes((folder / "hpc_ckpt_2.ckpt").read_bytes())
    assert trainer.hpc_save(folder) == f"{folder}/hpc_ckpt_11.ckpt"
    assert (tmp_path / "exp" / "version_0" / "meta.experiment").exists()

    second, other = Model(), quiet_trainer(tmp_path, max_nb_epochs=3, experiment=False)
    other.hpc_load(folder, on_gpu=False)
    seen = []
    second.on_epoch_start = lambda: seen.append((other.current_epoch, other.global_step))  # type: ignore[method-assign]
    other.fit(second)
    assert seen == [(2, 2 * NB_BATCHES)]
    for mine, theirs in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_hpc_load_brings_back_the_weights_of_the_model_that_is_there(tmp_path: Path) -> None:
    trainer, model = quiet_trainer(tmp_path), Model()
    trainer.fit(model)
    trainer.hpc_save(tmp_path / "hpc", None)
    kept = model.layer.weight.detach().clone()
    with torch.no_grad():
        model.layer.weight.zero_()
    trainer.hpc_load(tmp_path / "hpc", False)
    assert torch.equal(model.layer.weight, kept)
    with pytest.raises(CheckpointError, match=r"holds no hpc_ckpt_\*\.ckpt"):
        trainer.hpc_load(tmp_path / "nothing")


# ---------------------------------------------------------------------------------------------- accumulation
@pytest.mark.parametrize("place", ["option", "callbacks"])
def test_a_scheduler_of_accumulation(tmp_path: Path, place: str) -> None:
    scheduler = GradientAccumulationScheduler(scheduling={1: 2, 3: 4})
    options = {"accumulate_grad_batches": scheduler} if place == "option" else {"callbacks": [scheduler]}
    model = Model()
    trainer = quiet_trainer(tmp_path, max_nb_epochs=3, **options)
    trainer.fit(model)
    assert model.steps == [(0, 1), (0, 3), (0, 5), (1, 1), (1, 3), (1, 5), (2, 3), (2, 5)]
    assert trainer.accumulate_grad_batches == {1: 2, 3: 4}


def test_two_schedules_of_accumulation_are_refused() -> None:
    scheduler = GradientAccumulationScheduler({1: 2})
    for options in ({"accumulate_grad_batches": 3, "callbacks": [scheduler]}, {"callbacks": [scheduler, scheduler]}):
        with pytest.raises(MisconfigurationException, match="both say how many batches a step takes"):
            Trainer(**options)  # type: ignore[arg-type]
    with pytest.raises(MisconfigurationException, match="epochs counted from 1"):
        Trainer(accumulate_grad_batches=GradientAccumulationScheduler({0: 2}))  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- no validation_end
def test_without_an_end_numbers_are_averaged_by_batch(tmp_path: Path) -> None:
    trainer, model = quiet_trainer(tmp_path), Model()
    trainer.fit(model)
    with torch.no_grad():
        losses = [model.layer(batch).pow(2).mean() for batch in model.val_dataloader]
    expected = {"val_loss": float(sum(losses) / len(losses)), "index": 1.5}  # type: ignore[arg-type]
    assert trainer.validate() == pytest.approx(expected)
    assert {name: trainer.tng_tqdm_dic[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([None, None, None, None], {}),
        ([torch.ones(3)] * 4, {}),
        ([{"a": 1.0}, {"a": 2.0, "b": torch.tensor(5)}, {"b": 7, "logits": torch.ones(2)}, None], {"a": 1.5, "b": 6.0}),
    ],
    ids=["nothing", "tensors", "some"],
)
def test_without_an_end_other_outputs_give_nothing(tmp_path: Path, outputs: Any, expected: Any) -> None:
    class Returning(Model):
        def validation_step(self, data_batch: Any, batch_nb: int) -> Any:
            return outputs[batch_nb]

    trainer = quiet_trainer(tmp_path, nb_sanity_val_steps=0)
    trainer.fit(Returning())
    assert trainer.validate() == expected


def test_without_an_end_several_loaders_count_as_one(tmp_path: Path) -> None:
    class Several(Model):
        def validation_step(self, data_batch: Any, batch_nb: int, dataloader_i: int) -> Any:  # type: ignore[override]
            return {"val": float(10 * dataloader_i + batch_nb)}

        @property
        def val_dataloader(self) -> Any:
            return [self.batches()[:2], self.batches()[:3]]

    assert quiet_trainer(tmp_path).validate(Several()) == pytest.approx({"val": (0 + 1 + 10 + 11 + 12) / 5})


@pytest.mark.parametrize("options", [{}, {"gather_validation": False}], ids=str)
def test_without_an_end_several_processes_agree(tmp_path: Path, options: Any) -> None:
    alone = quiet_trainer(tmp_path).validate(Model())
    assert quiet_trainer(tmp_path, nb_processes=2, **options).validate(Model()) == pytest.approx(alone)


def test_a_test_without_an_end(tmp_path: Path) -> None:
    class NoEnd(Model):
        test_end = LightningModule.test_end

    assert quiet_trainer(tmp_path).test(NoEnd()) == pytest.approx(quiet_trainer(tmp_path).test(Model()))


def test_an_end_without_a_step_is_refused(tmp_path: Path) -> None:
    class NoStep(Model):
        validation_step = LightningModule.validation_step

        def validation_end(self, outputs: Any) -> Any:
            return {}

    with pytest.raises(MisconfigurationException, match="NoStep doesn't define validation_step"):
        quiet_trainer(tmp_path).fit(NoStep())


# ---------------------------------------------------------------------------------------------- copies of a Trainer
def test_a_trainer_can_be_pickled_before_a_fit(tmp_path: Path) -> None:
    """It trains as the first one does, with callbacks of its own."""
    keeper = ModelCheckpoint(tmp_path / "kept", "val_loss", save_top_k=1)
    first = quiet_trainer(tmp_path, callbacks=[keeper], max_nb_epochs=3, gradient_clip=0.5, accumulate_grad_batches=2)
    second = pickle.loads(pickle.dumps(first))
    given = {name: value for name, value in first.options.items() if name != "callbacks"}
    assert {name: second.options[name] for name in given} == given
    (own,) = second.callbacks
    assert own is not keeper
    assert (own.monitor, own.filepath, own.save_top_k) == ("val_loss", keeper.filepath, 1)
    models = Model(), Model()
    first.fit(models[0])
    best = keeper.best
    second.fit(models[1])
    assert models[0].steps == models[1].steps
    assert len(models[1].steps) == 9
    assert torch.equal(models[0].layer.weight, models[1].layer.weight)
    assert own.best == best


def test_a_trainer_whose_experiment_is_writing_says_why_it_cannot_be_pickled(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, experiment=Experiment(save_dir=str(tmp_path), name="open"))
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(MisconfigurationException, match="a Trainer whose Experiment is writing can't be pickled"):
            copied(trainer)
    assert copy.copy(trainer).experiment is trainer.experiment
    silent = quiet_trainer(tmp_path, experiment=Experiment(save_dir=str(tmp_path), name="open", debug=True))
    assert pickle.loads(pickle.dumps(silent)).experiment.name == "open"


# ---------------------------------------------------------------------------------------------- an idle accelerator
def of_fit(folder: Path, capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    quiet_trainer(folder, **options).fit(Model())
    return capsys.readouterr().err


def test_a_fit_on_the_cpu_beside_an_idle_accelerator_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert of_fit(tmp_path, capsys) == ""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    said = of_fit(tmp_path, capsys)
    assert said.count("\n") == 1
    assert "training runs on the CPU, though this machine has an accelerator (2 x cuda); pass gpus=1" in said
    assert said.endswith("  [idle-accelerator]\n")
    assert of_fit(tmp_path, capsys, gpus=0) == ""
    assert of_fit(tmp_path, capsys, silence=("idle-accelerator", "not-shuffled")) == ""
