"""Hyperparameter search as test-tube really calls its functions."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytorch_lightning import Trainer, add_default_args
from tests.recorder import QUIET, Recorder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from test_tube import Experiment, HyperOptArgumentParser, argparse_hopt


def train(hparams: Any, gpu_ids: str | None = None) -> dict[str, Any]:
    """One trial: what a template's ``main`` does."""
    experiment = Experiment(name="search", save_dir=hparams.tt_save_path, version=hparams.trial_of[hparams.lr])
    experiment.argparse(hparams)
    model = Recorder(lr=hparams.lr)
    model.hparams = hparams
    options = {k: v for k, v in QUIET.items() if k not in ("seed",)}
    Trainer.from_args(hparams, experiment=experiment, max_nb_epochs=1, **options).fit(model)
    experiment.close()
    return {
        "lr": hparams.lr,
        "weight": model.weight.item(),
        "gpus": gpu_ids,
        "seen": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


@pytest.fixture
def parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made = []
    monkeypatch.setattr(argparse_hopt, "sleep", lambda seconds: None)  # it waits up to 4 s before each trial

    def build(strategy: str) -> Any:
        parent = HyperOptArgumentParser(strategy=strategy, add_help=False)
        add_default_args(parent, str(tmp_path))
        parser = HyperOptArgumentParser(strategy=parent.strategy, parents=[parent])
        parser.opt_list("--lr", default=0.1, type=float, options=[0.05, 0.1, 0.2], tunable=True)
        parser.set_defaults(trial_of=_Versions())
        made.append(parser)
        return parser.parse_args([])

    yield build
    for parser in made:  # test-tube leaves its pool of processes open
        parser.pool.terminate()
        parser.pool.join()


class _Versions:
    """Gives each rate a version of its own: test-tube's numbers race between processes."""

    def __getitem__(self, rate: float) -> int:
        return round(rate * 100)


@pytest.mark.parametrize(("strategy", "trials"), [("grid_search", 3), ("random_search", 2)])
def test_a_search_on_the_cpu_trains_each_trial(tmp_path: Path, parse: Any, strategy: str, trials: int) -> None:
    hparams = parse(strategy)
    results = [result for _, result in hparams.optimize_parallel_cpu(train, nb_trials=trials, nb_workers=2)]
    rates = sorted(result["lr"] for result in results)
    assert len(rates) == trials == len(set(rates))
    weights = {result["lr"]: result["weight"] for result in results}
    for rate in rates:  # four steps of SGD towards 3
        assert weights[rate] == pytest.approx(3 - 3 * (1 - 2 * rate) ** 4, rel=1e-5)
        folder = tmp_path / f"test_tube_logs/search/version_{round(rate * 100)}"
        assert (folder / "metrics.csv").exists()
        assert f"lr,{rate}" in (folder / "meta_tags.csv").read_text()


def test_a_search_on_gpus_gives_each_trial_its_gpus(parse: Any) -> None:
    results = parse("grid_search").optimize_parallel_gpu(train, gpu_ids=["0", "1"], max_nb_trials=3)
    outcomes = [result for _, result in results]
    assert all(outcome is not None for outcome in outcomes)
    assert {outcome["gpus"] for outcome in outcomes} <= {"0", "1"}
    assert all(outcome["seen"] == outcome["gpus"] for outcome in outcomes)
