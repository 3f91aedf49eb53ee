"""Each how-to is a program that runs, prints what its page says, and does what it is for."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import pytorch_lightning
from pytorch_lightning import Trainer, seeding

ROOT = Path(pytorch_lightning.__file__).parent.parent
PROGRAMS = {path.stem: path for path in sorted((ROOT / "examples/howto").glob("*.py"))}
pytestmark = pytest.mark.slow


def run(name: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, Any]:
    """What it prints, and what it leaves."""
    with seeding.preserved():
        left = runpy.run_path(str(PROGRAMS[name]), run_name="__main__")
    return capsys.readouterr().out, type("Left", (), left)


def definitions(name: str) -> Any:
    """What the program defines."""
    return type("Definitions", (), runpy.run_path(str(PROGRAMS[name])))


def page_of(name: str) -> str:
    return (ROOT / f"docs/howto/{name}.md").read_text()


def shown_in(page: str) -> list[str]:
    """What the program prints, by its page."""
    return re.findall(r"^    (\S.*)$", page.split("It prints")[1].split("## ")[0], re.MULTILINE)


def parts_of(line: str) -> tuple[list[str], list[float]]:
    """Its words and its numbers."""
    found = re.split(r"(\d+(?:\.\d+)?)", line)
    return [" ".join(words.split()) for words in found[::2]], [float(number) for number in found[1::2]]


def claims_of_gan(rows: list[list[float]], left: Any) -> None:
    (_, gap_before), (miss, gap) = rows
    assert miss < 0.2
    assert gap < gap_before / 4


def claims_of_text_generation(rows: list[list[float]], left: Any) -> None:
    right = [left.model.write(f"{month} has ", nb=2) == f"{month} has {nb}" for month, nb in left.LENGTHS.items()]
    assert sum(right) >= 8  # of nine months
    drawn = {left.model.write("jun has 30 days\n", nb=3, temperature=1.0) for _ in range(30)}
    assert len(drawn) > 3


def claims_of_transfer_learning(rows: list[list[float]], left: Any) -> None:
    _, (scratch,), (frozen,), (unfrozen,) = rows
    assert min(frozen, unfrozen) > scratch + 0.08


def claims_of_metrics(rows: list[list[float]], left: Any) -> None:
    with torch.no_grad():
        samples = left.data(1000, seed=1).tensors
        pairs = [*zip(samples[1].tolist(), left.model.network(samples[0]).argmax(1).tolist(), strict=True)]
    counted = [[pairs.count((true, taken)) for taken in range(3)] for true in range(3)]
    assert left.model.matrix.tolist() == counted
    precision, recall = counted[2][2] / sum(row[2] for row in counted), counted[2][2] / sum(counted[2])
    assert left.found["f1_fox"] == pytest.approx(2 * precision * recall / (precision + recall))


def claims_of_search(rows: list[list[float]], left: Any) -> None:
    at_first, at_last = (float(left.scores[left.winner]), left.trainers[left.winner].metrics["val_acc"])
    assert at_last > max(0.7, at_first)
    assert left.trainers[left.winner].progress.nb_optimizer_steps == 10 * 20


def claims_of_nan(rows: list[list[float]], left: Any) -> None:
    assert rows[-2] == [3, 0, 100]


def claims_of_out_of_memory(rows: list[list[float]], left: Any) -> None:
    kept = [left.nb_bytes_kept(left.Deep(**o)) for o in ({"batch_size": 128}, {"batch_size": 32})]
    assert kept[0] == pytest.approx(4 * kept[1], rel=0.02)
    assert left.nb_bytes_kept(left.Deep(128, recompute=True)) < kept[0] / 4


def claims_of_slow_loader(rows: list[list[float]], left: Any) -> None:
    (alone,), (_, workers), (cached,) = rows
    assert alone > 50
    assert max(workers, cached) < alone


CLAIMS = {name.removeprefix("claims_of_"): check for name, check in globals().items() if name.startswith("claims_of_")}
TIMED = "slow_loader"
SECTIONS = ("What matters", "Usual mistakes", "Read on")


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_prints_what_its_page_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name])
    expected = shown_in(page_of(name))
    out, left = run(name, capsys)
    said = [line for line in out.splitlines() if parts_of(line)[0] in [parts_of(e)[0] for e in expected]]
    assert len(said) == len(expected) > 0
    for line, other in zip(said, expected, strict=True):
        assert parts_of(line)[0] == parts_of(other)[0]
        if name != TIMED:  # other processors
            assert parts_of(line)[1] == pytest.approx(parts_of(other)[1], rel=0.3, abs=0.1), (line, other)
    if name in CLAIMS:
        CLAIMS[name]([parts_of(line)[1] for line in said], left)


def test_each_program_has_a_page_in_the_list() -> None:
    pages = {path.stem for path in (ROOT / "docs/howto").glob("*.md")} - {"index"}
    listed = re.findall(
        r"^\| [^|]+ \| \[.+\]\((\w+)\.md\) \|$", (ROOT / "docs/howto/index.md").read_text(), re.MULTILINE
    )
    assert set(PROGRAMS) == pages == set(listed)
    for name in PROGRAMS:
        begin = PROGRAMS[name].read_text().splitlines()[2]
        assert begin.startswith(("import ", "from ", "# %%")), "the page leaves out the first two lines"
        assert f"../../examples/howto/{name}.py\n:language: python\n:lines: 3-" in page_of(name)
        headings = re.findall(r"^## (.+)$", page_of(name), re.MULTILINE)
        assert [h for h in headings if h in SECTIONS] == list(SECTIONS), name


def quiet(folder: Path, **options: Any) -> Trainer:
    return Trainer(False, default_save_path=folder, progress_bar=False, print_weights_summary=False, **options)


def test_each_sample_is_in_one_fold() -> None:
    made = definitions("cross_validation")
    held_out = []
    for fold in range(made.NB_FOLDS):
        model = made.Classifier(fold)
        trained = set(model.tng_dataloader.dataset.indices)
        tested = model.val_dataloader.dataset.indices
        assert trained | set(tested) == set(range(200))
        assert not trained & set(tested)
        held_out += tested
    assert sorted(held_out) == [*range(200)]


def test_the_rare_class_is_drawn_as_often_as_the_other_one(tmp_path: Path) -> None:
    made = definitions("imbalanced")
    seen: list[int] = []

    class Noting(made.Detector):  # type: ignore[name-defined,misc]
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            seen.extend(data_batch[1].tolist())
            return super().training_step(data_batch, batch_nb)

    model = Noting("draw")
    assert model.samples.tensors[1].float().mean() < 0.05
    quiet(tmp_path, max_nb_epochs=2, seed=0).fit(model)
    assert len(seen) == 4000
    assert sum(seen) / len(seen) == pytest.approx(0.5, abs=0.04)


def test_the_future_is_not_in_a_window_of_the_past() -> None:
    made = definitions("time_series")
    model, values = made.Forecaster(), made.series()
    past = torch.cat([torch.cat([x, y[None]]) for x, y in model.tng_dataloader.dataset])
    later = torch.cat([torch.cat([x, y[None]]) for x, y in model.val_dataloader.dataset])
    assert set(past.tolist()) <= set(values[:900].tolist())
    assert set(later.tolist()) <= set(values[900:].tolist())
    assert model.std == values[:900].std()


def test_the_intersection_over_union_is_that_of_all_pixels(tmp_path: Path) -> None:
    made = definitions("segmentation")
    model, trainer = made.UNet(), quiet(tmp_path, max_nb_epochs=1, max_nb_tng_batches=5, seed=0)
    trainer.fit(model)
    found = trainer.validate()["iou"]
    images, masks = map(torch.stack, zip(*[made.Discs(70, seed=1)[i] for i in range(70)], strict=True))
    with torch.no_grad():
        drawn = model.eval()(images) > 0
    assert found == pytest.approx(((drawn & masks).sum() / (drawn | masks).sum()).item(), abs=1e-6)


def test_the_weights_of_the_tasks_are_trained_and_saved(tmp_path: Path) -> None:
    model = definitions("multi_task").TwoTasks()
    trainer = quiet(tmp_path, max_nb_epochs=2, seed=0)
    trainer.fit(model)
    assert (model.log_vars != 0).all()
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    assert "log_vars" in torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"]


class Stop(Exception):
    pass


def test_an_episode_is_played_with_the_weights_of_now_and_resumes(tmp_path: Path) -> None:
    made = definitions("reinforcement")
    played: list[torch.Tensor] = []
    trained: list[torch.Tensor] = []

    class Noting(made.Episodes):  # type: ignore[name-defined,misc]
        def __iter__(self) -> Any:
            episodes = super().__iter__()
            for _ in range(self.nb):
                played.append(self.policy.weight.detach().clone())
                yield next(episodes)

    class Walker(made.Walker):  # type: ignore[name-defined,misc]
        cut = -1

        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            if self.global_step == self.cut:
                raise Stop
            trained.append(self.policy.weight.detach().clone())
            return super().training_step(data_batch, batch_nb)

        @property
        def tng_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(Noting(self.policy, 50), batch_size=None)

    def fit(folder: str, cut: int = -1) -> Any:
        torch.manual_seed(0)
        model = Walker()
        model.cut = cut
        quiet(tmp_path / folder, max_nb_epochs=2, seed=0, save_every_nb_batches=10, resume="auto").fit(model)
        return model

    whole = fit("whole")
    assert len(played) == len(trained) == 100
    assert all(map(torch.equal, played, trained))
    for cut in (17, 63):
        with pytest.raises(Stop):
            fit(f"cut {cut}", cut)
        assert torch.equal(fit(f"cut {cut}").policy.weight, whole.policy.weight)
