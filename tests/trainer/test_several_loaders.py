"""Several training loaders at once: a batch of each, in the form they are given in, against ``zip`` by hand."""

from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Sampler

from pytorch_lightning import LightningModule
from pytorch_lightning.errors import FitError, MisconfigurationException
from pytorch_lightning.seeding import order_scope
from tests.recorder import quiet_trainer

Pair = namedtuple("Pair", "images text")
SEED, NB_EPOCHS = 3, 2


class Numbers(Dataset[Any]):
    def __init__(self, nb: int, first: int = 0) -> None:
        self.nb, self.first = nb, first

    def __len__(self) -> int:
        return self.nb

    def __getitem__(self, i: int) -> Tensor:
        return torch.tensor(float(self.first + i))


class Stream(IterableDataset[Any]):
    def __init__(self, nb: int, first: int = 0) -> None:
        self.nb, self.first = nb, first

    def __iter__(self) -> Iterator[Tensor]:
        return (torch.tensor(float(self.first + i)) for i in range(self.nb))


class Several(LightningModule):
    """Notes what it gets. ``fails_at``: after so many batches of this start it raises."""

    def __init__(self, make: Callable[[], Any], mode: str = "longest", fails_at: int = -1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.__dict__["make"], self.__dict__["noted"] = make, []
        self.tng_loaders_mode, self.fails_at = mode, fails_at

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        each = data_batch.values() if isinstance(data_batch, dict) else data_batch
        if len(self.noted) == self.fails_at:
            raise KeyError("cut")
        self.noted.append([part.tolist() for part in each])
        return {"loss": sum((self.weight * part).pow(2).mean() for part in each) + self.weight.sum()}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 1e-6)

    @property
    def tng_dataloader(self) -> Any:
        return self.make()


def two(nb_workers: int = 0, **options: Any) -> dict[str, Any]:
    """Five batches and three."""
    return {
        "a": DataLoader(Numbers(10), 2, shuffle=True, num_workers=nb_workers, **options),
        "b": DataLoader(Numbers(7, 100), 3, shuffle=True, num_workers=nb_workers),
    }


def fitted(folder: Path, model: Several, **options: Any) -> list[Any]:
    quiet_trainer(folder, seed=SEED, max_nb_epochs=NB_EPOCHS, **options).fit(model)
    return model.noted  # type: ignore[no-any-return]


def by_hand(loaders: dict[str, Any], mode: str) -> list[Any]:
    """What a loop by hand gets, one that begins a loader again where it is at its end."""
    noted = []
    for epoch in range(NB_EPOCHS):
        with order_scope(SEED, epoch):
            iterators = {name: iter(loader) for name, loader in loaders.items()}
            for _ in range((max if mode == "longest" else min)(map(len, loaders.values()))):
                row = []
                for name, loader in loaders.items():
                    try:
                        batch = next(iterators[name])
                    except StopIteration:
                        iterators[name] = iter(loader)
                        batch = next(iterators[name])
                    row.append(batch.tolist())
                noted.append(row)
    return noted


@pytest.mark.parametrize("mode", ["longest", "shortest"])
def test_each_batch_is_that_of_a_loop_by_hand(tmp_path: Path, mode: str) -> None:
    noted = fitted(tmp_path, Several(two, mode))
    assert noted == by_hand(two(), mode)
    assert len(noted) == NB_EPOCHS * {"longest": 5, "shortest": 3}[mode]


def test_three_loaders_of_which_one_begins_again_twice(tmp_path: Path) -> None:
    def three() -> dict[str, Any]:
        return {**two(), "c": DataLoader(Numbers(4, 1000), 2, shuffle=True)}

    noted = fitted(tmp_path, Several(three))
    assert noted == by_hand(three(), "longest")
    first = [x for row in noted[:4] for x in row[2]]
    assert sorted(first) == sorted(2 * [1000.0, 1001.0, 1002.0, 1003.0])  # twice all of it


def test_workers_change_nothing(tmp_path: Path) -> None:
    alone = fitted(tmp_path / "alone", Several(two))
    assert fitted(tmp_path / "workers", Several(lambda: two(1))) == alone


@pytest.mark.parametrize("kind", ["dict", "list", "tuple", "named tuple"])
def test_a_batch_has_the_form_of_the_loaders(tmp_path: Path, kind: str) -> None:
    forms: dict[str, Any] = {
        "dict": dict,
        "list": lambda pairs: list(dict(pairs).values()),
        "tuple": lambda pairs: tuple(dict(pairs).values()),
        "named tuple": lambda pairs: Pair(*dict(pairs).values()),
    }
    types = []

    class Typed(Several):
        def training_step(self, data_batch: Any, batch_nb: int) -> Any:
            types.append(type(data_batch))
            return super().training_step(data_batch, batch_nb)

    noted = fitted(tmp_path, Typed(lambda: forms[kind](two().items())))
    assert noted == by_hand(two(), "longest")
    assert set(types) == {{"dict": dict, "list": list, "tuple": tuple, "named tuple": Pair}[kind]}


def test_a_list_of_batches_is_one_of_several(tmp_path: Path) -> None:
    ready = [torch.ones(2), torch.zeros(2)]
    noted = fitted(tmp_path, Several(lambda: {"ready": ready, "b": DataLoader(Numbers(6), 3)}))
    assert noted == NB_EPOCHS * [[[1.0, 1.0], [0.0, 1.0, 2.0]], [[0.0, 0.0], [3.0, 4.0, 5.0]]]


def test_batches_without_a_batch_size_and_own_batch_samplers(tmp_path: Path) -> None:
    class Pairs(Sampler[list[int]]):
        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[list[int]]:
            return iter([[3, 0], [1, 2]])

    def made() -> Any:
        return {"a": DataLoader(Numbers(4), batch_sampler=Pairs()), "b": DataLoader(Numbers(3, 10), batch_size=None)}

    noted = fitted(tmp_path, Several(made))
    assert noted[:3] == [[[3.0, 0.0], 10.0], [[1.0, 2.0], 11.0], [[3.0, 0.0], 12.0]]


def test_own_generators_decide_the_order(tmp_path: Path) -> None:
    def made(seed: int) -> Any:
        return {"b": two()["b"], "a": DataLoader(Numbers(10), 2, True, generator=torch.Generator().manual_seed(seed))}

    orders = [fitted(tmp_path / str(n), Several(lambda s=seed: made(s))) for n, seed in enumerate((1, 1, 2))]
    assert orders[0] == orders[1] != orders[2]


# ------------------------------------------------------------------------------------------ what may be combined
@pytest.mark.parametrize("mode", ["longest", "shortest"])
def test_streams_and_datasets_together(tmp_path: Path, mode: str) -> None:
    def made() -> Any:
        return {"a": DataLoader(Stream(9), 2), "b": DataLoader(Numbers(7, 100), 3)}

    noted = fitted(tmp_path, Several(made, mode))
    rows = [
        [[0.0, 1.0], [100.0, 101.0, 102.0]],
        [[2.0, 3.0], [103.0, 104.0, 105.0]],
        [[4.0, 5.0], [106.0]],
        [[6.0, 7.0], [100.0, 101.0, 102.0]],
        [[8.0], [103.0, 104.0, 105.0]],
    ]
    assert noted == NB_EPOCHS * rows[: {"longest": 5, "shortest": 3}[mode]]


def test_a_stream_without_an_end_beside_a_dataset(tmp_path: Path) -> None:
    class Endless(Stream):
        def __iter__(self) -> Iterator[Tensor]:
            n = 0
            while True:
                yield torch.tensor(float(n))
                n += 1

    made = {"a": DataLoader(Endless(0), 2), "b": DataLoader(Numbers(4), 2)}
    assert len(fitted(tmp_path, Several(lambda: made, "shortest"))) == NB_EPOCHS * 2
    limited = Several(lambda: made)
    fitted(tmp_path, limited, max_nb_tng_batches=3)
    assert [row[0] for row in limited.noted] == [[2.0 * n, 2.0 * n + 1] for n in range(6)]  # it goes on
    assert [row[1] for row in limited.noted] == 3 * [[0.0, 1.0], [2.0, 3.0]]


def test_an_iterator_can_be_used_once(tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"tng_dataloader\['a'\].*can't start again.*Return what it was made from"):
        fitted(tmp_path, Several(lambda: {"a": iter([torch.ones(1)] * 2), "b": two()["a"]}))


def test_one_that_becomes_empty_is_an_error(tmp_path: Path) -> None:
    class Vanishing(Stream):
        def __iter__(self) -> Iterator[Tensor]:
            self.nb, nb = 0, self.nb
            return iter(torch.arange(float(nb)))

    with pytest.raises(FitError, match=r"tng_dataloader\['a'\] yielded no batches"):
        fitted(tmp_path, Several(lambda: {"a": DataLoader(Vanishing(2)), "b": two()["a"]}))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({}, ["dict without loaders"]),
        ({"a": 3, "b": "x"}, ["tng_dataloader['a'] returned something that isn't a loader", "tng_dataloader['b']"]),
        ({"a": {"b": DataLoader(Numbers(2))}}, ["loaders inside of loaders", "tng_dataloader['a']"]),
        ([DataLoader(Numbers(2)), [torch.ones(1)]], ["a list of loaders and other things", "{'images': loader"]),
        ({"a": DataLoader(Numbers(0)), "b": DataLoader(Numbers(2))}, ["tng_dataloader['a'] returned an empty loader"]),
    ],
    ids=["none", "no loaders", "nested", "mixed", "empty"],
)
def test_what_cannot_be_combined(tmp_path: Path, made: Any, words: list[str]) -> None:
    with pytest.raises(MisconfigurationException) as raised:
        fitted(tmp_path, Several(lambda: made))
    for word in words:
        assert word in str(raised.value)


def test_a_mode_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(
        MisconfigurationException, match=r"tng_loaders_mode must be 'longest' or 'shortest'.*'max_size'"
    ):
        fitted(tmp_path, Several(two, "max_size"))


def test_a_loader_with_a_state_of_its_own_is_refused(tmp_path: Path) -> None:
    class Stateful:
        def __iter__(self) -> Iterator[Tensor]:
            return iter([torch.ones(1)])

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: Any) -> None:
            pass

    with pytest.raises(MisconfigurationException, match=r"tng_dataloader\['a'\] has its own state"):
        fitted(tmp_path, Several(lambda: {"a": Stateful(), "b": two()["b"]}))


def test_an_error_says_which_of_them_it_comes_from(tmp_path: Path) -> None:
    class Broken(Numbers):
        def __getitem__(self, i: int) -> Tensor:
            raise ValueError("unreadable")

    with pytest.raises(ValueError, match="unreadable") as raised:
        fitted(tmp_path, Several(lambda: {"good": two()["a"], "bad": DataLoader(Broken(4))}))
    assert "raised by the loader 'bad'" in "\n".join(raised.value.__notes__)


# ------------------------------------------------------------------------------------------ other options
def test_passed_to_fit_and_counted(tmp_path: Path) -> None:
    model = Several(list)
    trainer = quiet_trainer(tmp_path, seed=SEED, max_nb_epochs=NB_EPOCHS, accumulate_grad_batches=2)
    trainer.fit(model, two())
    assert model.noted == by_hand(two(), "longest")
    assert (trainer.nb_tng_batches, trainer.nb_total_steps, trainer.progress.nb_optimizer_steps) == (5, 6, 6)


def test_samples_of_all_loaders_fill_a_window(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, max_nb_epochs=1, accumulate_nb_samples=10)
    trainer.fit(Several(lambda: {"a": DataLoader(Numbers(12), 2), "b": DataLoader(Numbers(18), 3)}))
    assert trainer.progress.nb_optimizer_steps == 3  # of 6 batches of 2 and 3 samples


def test_overfit_pct_takes_both_in_order(tmp_path: Path) -> None:
    noted = fitted(tmp_path, Several(two), overfit_pct=0.4)
    assert noted == NB_EPOCHS * [[[0.0, 1.0], [100.0, 101.0, 102.0]], [[2.0, 3.0], [103.0, 104.0, 105.0]]]


@pytest.mark.parametrize("made", ["datasets", "streams"])
@pytest.mark.parametrize("cut", [3, 5, 7])
def test_a_resume_gets_the_batches_that_were_left(tmp_path: Path, made: str, cut: int) -> None:
    def loaders() -> Any:
        return two() if made == "datasets" else {"a": DataLoader(Stream(9), 2), "b": two()["b"]}

    whole = fitted(tmp_path / "whole", Several(loaders))
    options = {"resume": "auto", "save_every_nb_batches": 1}
    first = Several(loaders, fails_at=cut)
    with pytest.raises(KeyError, match="cut"):
        fitted(tmp_path / "cut", first, **options)
    second = Several(loaders)
    fitted(tmp_path / "cut", second, **options)
    assert second.noted == whole  # what was noted before is state too


def test_a_resume_with_other_data_in_one_of_them_is_refused(tmp_path: Path) -> None:
    def other() -> Any:
        return {**two(), "b": DataLoader(Numbers(7, 100), 3)}  # not shuffled any more

    options = {"resume": "auto", "save_every_nb_batches": 1}
    with pytest.raises(KeyError, match="cut"):
        fitted(tmp_path, Several(two, fails_at=3), **options)
    with pytest.raises(FitError, match="the order of the training data differs"):
        fitted(tmp_path, Several(other), **options)


def test_what_a_dataset_becomes_is_kept(tmp_path: Path) -> None:
    """The attribute of a dataset that a hook sets is state, whichever loader reads it."""

    class Curriculum(Several):
        def on_epoch_start(self) -> None:
            self.data.first = 1000 * (1 + self.current_epoch)

    def made(**options: Any) -> Curriculum:
        data = Numbers(4)
        model = Curriculum(lambda: {"a": DataLoader(data, 2), "b": two()["b"]}, **options)
        model.__dict__["data"] = data
        return model

    whole = fitted(tmp_path / "whole", made())
    first, second = made(fails_at=4), made()
    with pytest.raises(KeyError, match="cut"):
        fitted(tmp_path / "cut", first, resume="auto", save_every_nb_batches=1)
    fitted(tmp_path / "cut", second, resume="auto", save_every_nb_batches=1)
    assert second.noted == whole  # what was noted before is state too
    assert (whole[0][0], whole[3][0]) == ([1000.0, 1001.0], [2000.0, 2001.0])


def test_a_sampler_with_a_state_is_kept(tmp_path: Path) -> None:
    class Counting(Sampler[int]):
        """Each pass begins where the one before ended."""

        def __init__(self) -> None:
            self.at = 0

        def __len__(self) -> int:
            return 4

        def __iter__(self) -> Iterator[int]:
            for _ in range(4):
                self.at += 1
                yield (self.at - 1) % 10

        def state_dict(self) -> dict[str, Any]:
            return {"at": self.at}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.at = state["at"]

    def made() -> Any:
        return {"a": DataLoader(Numbers(10), batch_sampler=BatchSampler(Counting(), 2, False)), "b": two()["b"]}

    whole = fitted(tmp_path / "whole", Several(made))
    first, second = Several(made, fails_at=4), Several(made)
    with pytest.raises(KeyError, match="cut"):
        fitted(tmp_path / "cut", first, resume="auto", save_every_nb_batches=1)
    fitted(tmp_path / "cut", second, resume="auto", save_every_nb_batches=1)
    assert second.noted == whole  # what was noted before is state too


def test_virtual_ranks_deal_out_whole_batches(tmp_path: Path) -> None:
    """Rounds of two: each batch is somebody's, once."""
    noted = fitted(tmp_path, Several(two), virtual_ranks=2)
    assert noted == by_hand(two(), "longest")
