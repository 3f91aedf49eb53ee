"""What every strategy must give: the numbers of one process."""

import re
from collections import Counter
from typing import Any

import pytest
import torch

from pytorch_lightning import seeding
from tests.conformance import models
from tests.conformance.cases import ELASTIC, FITS, SHARED
from tests.conformance.conftest import Results

REFUSED = {("line search", "fsdp"), ("line search, accumulated", "fsdp")}
ROUNDED = {
    (name, "fsdp")
    for name in (
        "clipped by norm",
        "clipped by norm, smooth",
        "clipped, a step per optimizer",
        "16, accumulated and clipped",
        "a step per optimizer, accumulated",
    )
}
"""Norms of pieces are added up in another order, and what waits for its optimizer's turn is exchanged in two parts.
Adam makes much of a last bit."""
# what one process sees of its own batches differs, and so does what a sum of losses is rounded to
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def same_weights(one: Any, other: Any) -> bool:
    assert one["weights"].keys() == other["weights"].keys()
    return all(torch.equal(one["weights"][name], other["weights"][name]) for name in one["weights"])


def assert_close(one: dict[str, Any], other: dict[str, Any], **tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(torch.as_tensor(value), torch.as_tensor(other[name]), **tolerance)


def assert_same_fit(one: Any, other: Any) -> None:
    """The same bits, and the same numbers."""
    assert same_weights(one, other)
    assert one["steps"] == other["steps"]
    assert_close(one["metrics"], other["metrics"], **CLOSE)


@pytest.mark.parametrize("strategy", SHARED)
@pytest.mark.parametrize("name", FITS)
def test_two_processes_train_to_the_weights_of_one(results: Results, name: str, strategy: str) -> None:
    if (name, strategy) in REFUSED | ROUNDED:
        return
    alone = results(name, "None", 1)
    for one in results.everybodys(name, strategy, 2):
        assert_same_fit(one, alone)


@pytest.mark.parametrize(("strategy", "nb"), [("None", 1), *((strategy, 2) for strategy in SHARED)])
def test_with_a_distributed_sampler_each_sample_is_trained_on_once(results: Results, strategy: str, nb: int) -> None:
    found = results.everybodys("distributed sampler", strategy, nb)
    times = Counter(sample for one in found for _, samples in one["seen"] for sample in samples)
    nb_epochs = found[0]["steps"][1]
    assert times == dict.fromkeys(range(models.Net.nb_tng), nb_epochs)


@pytest.mark.parametrize("name", sorted(name for name, _ in ROUNDED))
def test_sums_of_shards_are_the_same_to_rounding(results: Results, name: str) -> None:
    sharded, alone = results(name, "fsdp", 2), results(name, "None", 1)
    assert_close(sharded["weights"], alone["weights"], rtol=0.0, atol=2e-2)
    assert sharded["steps"] == alone["steps"]


@pytest.mark.parametrize("strategy", SHARED)
def test_clipping_by_norm_clips_the_norm_of_the_whole_gradient(results: Results, strategy: str) -> None:
    name = "clipped by norm, smooth"
    clipped, alone = results(name, strategy, 2), results(name, "None", 1)
    assert_close(clipped["weights"], alone["weights"], rtol=0.0, atol=1e-6)
    assert not same_weights(clipped, results("smooth", strategy, 2))


@pytest.mark.parametrize("strategy", SHARED)
@pytest.mark.parametrize("name", ["plain", "accumulated", "16"])
def test_a_strategy_works_in_one_process(results: Results, name: str, strategy: str) -> None:
    assert_same_fit(results(name, strategy, 1), results(name, "None", 1))


@pytest.mark.parametrize(("name", "window"), [("smooth", 1), ("smooth, accumulated", 2)])
def test_two_processes_train_like_a_plain_loop_over_pairs_of_batches(results: Results, name: str, window: int) -> None:
    torch.manual_seed(0)
    model = models.Smooth()
    optimizer = model.configure_optimizers()[0]
    for epoch in range(2):
        with seeding.order_scope(1, epoch):
            loaded = list(model.tng_dataloader)
        for first in range(0, len(loaded), 2 * window):
            batches = loaded[first : first + 2 * window]
            (sum(model.loss(batch) for batch in batches) / len(batches)).backward()
            optimizer.step()
            optimizer.zero_grad()
    for strategy in SHARED:
        trained = results(name, strategy, 2)["weights"]
        assert_close(trained, dict(model.state_dict()), rtol=0.0, atol=1e-6)


def test_counts_weigh_batches_by_their_items(results: Results) -> None:
    assert not same_weights(results("counted", "None", 1), results("plain", "None", 1))


@pytest.mark.parametrize("strategy", SHARED)
@pytest.mark.parametrize("nb", [2, 4])
@pytest.mark.parametrize("name", ELASTIC)
def test_four_virtual_ranks_are_the_same_on_4_2_and_1_processes(
    results: Results, name: str, nb: int, strategy: str
) -> None:
    exact = "exact" in name
    if exact and strategy == "fsdp":
        return  # refused: test_arguments
    alone = results(name, "None", 1, 4)
    for one in results.everybodys(name, strategy, nb, 4):
        assert one["steps"] == alone["steps"]
        assert_close(one["weights"], alone["weights"], rtol=0.0, atol=0.0 if exact else 1e-6)
        assert_close(one["metrics"], alone["metrics"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", SHARED)
@pytest.mark.parametrize(
    ("name", "nb", "virtual"), [("plain", 2, 2), ("sgd", 2, 4), ("sgd", 4, 4), ("streamed", 2, 2), ("listed", 2, 2)]
)
def test_each_sample_is_trained_on_once_per_epoch_in_the_order_of_one_process(
    results: Results, name: str, nb: int, virtual: int, strategy: str
) -> None:
    def batches_of(seen: list[Any]) -> dict[Any, list[Any]]:
        rounds: dict[Any, list[Any]] = {}
        epoch, before = 0, 0
        for batch_nb, samples in seen:
            epoch, before = epoch + (batch_nb < before), batch_nb
            rounds.setdefault((epoch, batch_nb), []).append(samples)
        return rounds

    everybodys = [batches_of(one["seen"]) for one in results.everybodys(name, strategy, nb, virtual)]
    alone = batches_of(results(name, "None", 1, virtual)["seen"])
    for place, batches in alone.items():
        had = [batch for rank in everybodys for batch in rank.get(place, [])]
        # a sharded process without a batch repeats an earlier one, with no weight
        assert had[: len(batches)] == batches
        assert len(had) == len(batches) or strategy == "fsdp"
    epochs = [[s for (e, _), b in alone.items() if e == epoch for batch in b for s in batch] for epoch in range(2)]
    assert all(sorted(samples) == list(range(70)) for samples in epochs)


@pytest.mark.parametrize("strategy", SHARED)
def test_validate_test_and_predict_give_the_numbers_of_one_process(results: Results, strategy: str) -> None:
    alone = results("numbers", "None", 1)
    assert alone["validated"]["nb_val"] == 50
    assert alone["tested"]["nb_val"] == 41
    assert alone["validated"]["in_order"] == 1.0
    for one in results.everybodys("numbers", strategy, 2):
        for name in ("validated", "tested"):
            assert_close(one[name], alone[name], rtol=0.0, atol=0.0)
        for name in ("predicted", "predicted one batch"):
            assert torch.equal(one[name], alone[name])
        assert_close(one["untouched"], alone["untouched"], rtol=0.0, atol=0.0)


@pytest.mark.parametrize("nb", [2, 3, 4])
@pytest.mark.parametrize("strategy", SHARED)
def test_few_samples_give_the_numbers_of_one_process_in_any_number(results: Results, strategy: str, nb: int) -> None:
    alone = results("small_sets", "None", 1)
    assert [alone[n]["nb_val"] for n in alone] == list(range(1, 18))
    for one in results.everybodys("small_sets", strategy, nb):
        for n in alone:
            assert_close(one[n], alone[n], rtol=0.0, atol=0.0)


@pytest.mark.parametrize("strategy", SHARED)
def test_without_gathering_numbers_are_averaged_by_batches(results: Results, strategy: str) -> None:
    alone, found = results("not_gathered", "None", 1), results.everybodys("not_gathered", strategy, 2)
    assert all(same_weights(one, alone) for one in found)
    assert found[0]["metrics"] == found[1]["metrics"]
    assert found[0]["metrics"]["val_loss"] == pytest.approx(alone["metrics"]["val_loss"], rel=0.05)
    # 4 batches with 26 samples, the short last one among them, and 3 with 24
    assert found[0]["metrics"]["nb_val"] == pytest.approx((4 * 26 + 3 * 24) / 7)


@pytest.mark.parametrize("strategy", SHARED)
def test_the_log_is_that_of_one_process(results: Results, strategy: str) -> None:
    rows, alone = results("rows", strategy, 2), results("rows", "None", 1)
    assert rows["folder"] == "TwoOptimizers"
    assert rows["columns"] == alone["columns"]
    assert "grad_2_norm_total" in rows["columns"]
    torch.testing.assert_close(rows["values"], alone["values"], rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("strategy", SHARED)
def test_a_gradient_that_is_not_finite_is_named(results: Results, strategy: str) -> None:
    for told in results.everybodys("bad_gradient", strategy, 2):
        assert re.findall(r"the gradient of (\S+) isn't finite", told) == ["root"]


def test_ddp_names_parameters_without_a_gradient(results: Results) -> None:
    for found in results.everybodys("unused", "ddp", 2):
        assert "2 parameters got no gradient" in found["default"]
        assert "forgotten.weight, forgotten.bias" in found["default"]
        assert "find_unused_parameters=True" in found["default"]


@pytest.mark.parametrize("strategy", SHARED)
def test_a_step_may_leave_parameters_out(results: Results, strategy: str) -> None:
    found = results("unused", strategy, 2)
    assert_same_fit(found["find"], results("unused", "None", 1)["find"])


@pytest.mark.parametrize("strategy", SHARED)
@pytest.mark.parametrize("nb", [1, 2])
def test_after_a_fit_the_model_is_the_callers_own_again(results: Results, nb: int, strategy: str) -> None:
    alone = results("given_back", "None", 1)
    for found in results.everybodys("given_back", strategy, nb):
        for name in ("same objects", "same types", "same attributes", "no hooks", "plain"):
            assert found[name], name
        assert_same_fit(found["trained"], alone["trained"])
        assert_close(found["copy"], found["trained"]["weights"], rtol=0.0, atol=0.0)
        assert_same_fit(found["second fit"], alone["second fit"])


# ------------------------------------------------------------------ fully sharded
def test_sharded_processes_hold_a_part_of_the_weights_between_steps(results: Results) -> None:
    found, alone = results.everybodys("held", "fsdp", 2), results("held", "None", 1)
    assert all(same_weights(one, alone) for one in found)
    held = [[n for n in one["seen"] if isinstance(n, int)] for one in found]
    (whole,) = {n for n in alone["seen"] if isinstance(n, int)}
    assert {a + b for a, b in zip(*held, strict=True)} == {whole}
    assert max(map(max, held)) < 0.6 * whole


def test_a_parameter_without_dimension_cannot_be_sharded(results: Results) -> None:
    assert results("scalar", "ddp", 2) == 1
    for found in results.everybodys("scalar", "fsdp", 2):
        assert found.startswith("MisconfigurationException")
        assert "['scale']" in found


def test_a_line_search_is_refused_with_shards(results: Results) -> None:
    with pytest.raises(AssertionError, match="LBFGS needs all gradients in one vector"):
        results("line search", "fsdp", 2)


# ------------------------------------------------------------------ checkpoints
def assert_same_data(one: Any, other: Any, path: str = "") -> None:
    """The same structure, types and bits."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert list(one) == list(other), path
        for key in one:
            assert_same_data(one[key], other[key], f"{path}[{key!r}]")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same_data(a, b, f"{path}[{i}]")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, path
        assert torch.equal(one, other), path
        assert one.untyped_storage().nbytes() == other.untyped_storage().nbytes(), path
    else:
        assert one == other or one != one, path


def comparable(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from run to run."""
    parts = {
        k: v for k, v in checkpoint["parts"].items() if k not in ("callbacks", "random", "metrics", "run", "checksums")
    }
    of_run = {"progress": {**parts["progress"], "seconds": 0.0}, "attributes": {**parts["attributes"], "nb": 0}}
    return {**checkpoint, "parts": {**parts, **of_run}}


@pytest.mark.parametrize("strategy", SHARED)
def test_a_checkpoint_is_one_plain_file_as_of_one_process(results: Results, strategy: str) -> None:
    alone = results("checkpoint", "None", 1)
    for found in results.everybodys("checkpoint", strategy, 2):
        assert_same_data(comparable(found["file"]), comparable(alone["file"]))
        assert_close(found["loaded"], alone["loaded"], rtol=0.0, atol=0.0)
        assert_close(found["tested"], alone["tested"], rtol=0.0, atol=0.0)
        assert found["size"] == pytest.approx(alone["size"], rel=0.02)


@pytest.mark.parametrize("strategy", SHARED)
def test_a_fit_resumes_bit_for_bit_from_any_file(results: Results, strategy: str) -> None:
    whole = results("two optimizers", "None", 1)
    for found in results.everybodys("resumed", strategy, 2):
        assert {"itself", "None-1-2-epoch-1.ckpt"} <= found.keys()
        for again in found.values():
            assert_same_fit(again, whole)


def test_one_process_resumes_from_the_file_of_several(results: Results) -> None:
    whole, found = results("two optimizers", "None", 1), results("resumed", "None", 1, after=True)
    assert {f"{strategy}-2-2-epoch-1.ckpt" for strategy in SHARED} <= found.keys()
    for again in found.values():
        assert_same_fit(again, whole)


def test_shards_become_the_file_that_would_have_been_written(results: Results) -> None:
    assert results("pieces", "ddp", 2)["files"] == []
    found = results("pieces", "fsdp", 2)
    assert found["files"] == [".metadata", "__0_0.distcp", "__1_0.distcp", "manifest.ckpt", "shards.json"]
    assert_same_data(comparable(found["consolidated"]), comparable(found["beside"]))


@pytest.mark.parametrize("strategy", SHARED)
def test_shards_are_resumed_by_other_numbers_of_processes(results: Results, strategy: str) -> None:
    whole = results("a step per optimizer", "None", 1)
    four = results("sgd", "None", 1, 4)
    places = [results("pieces", strategy, 2), results("pieces", "None", 1, after=True)]
    for found in places:
        assert {virtual for _, virtual in found["resumed"]} == {2, 4}
        for (_, virtual), again in found["resumed"].items():
            if virtual == 2:
                assert_same_fit(again, whole)
            else:
                assert again["steps"] == four["steps"]
                assert_close(again["weights"], four["weights"], rtol=0.0, atol=1e-6)


def test_gradients_that_wait_are_in_files_and_shards(results: Results) -> None:
    whole = results("waits", "None", 1)
    places = [*results.everybodys("waiting", "fsdp", 2), results("waiting", "None", 1, after=True)]
    written = {"None-1-2-waiting", "ddp-2-2-waiting", "fsdp-2-2-waiting"}
    assert written <= set(places[0])
    assert written <= set(places[-1])
    for found in places:
        for again in found.values():
            assert same_weights(again, whole)
            assert again["steps"] == whole["steps"]


@pytest.mark.parametrize("strategy", SHARED)
def test_where_one_process_cannot_write_its_shard_all_raise(results: Results, strategy: str) -> None:
    for told, there in results.everybodys("half_written", strategy, 2):
        assert "can't be written" in told
        assert not there


@pytest.mark.parametrize("strategy", SHARED)
def test_where_the_first_process_cannot_write_all_raise(results: Results, strategy: str) -> None:
    for told in results.everybodys("unwritable", strategy, 2):
        assert "x.ckpt can't be written" in told
