"""Random numbers as functions of counters."""

import hashlib
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pytorch_lightning import seed_everything, seeding


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_seed_everything_seeds_the_three_streams() -> None:
    with seeding.preserved():
        assert seed_everything(5) == 5
        first = draw()
        seed_everything(5)
        assert draw() == first
        seed_everything(6)
        assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_a_step_scope_depends_on_each_of_its_arguments_and_leaves_no_trace() -> None:
    before = seeding.get_generator_states()
    drawn = set()
    for seed, step, rank in ((1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1), (1, 0, 0)):
        with seeding.step_scope(seed, step, rank):
            drawn.add(draw())
    assert len(drawn) == 4
    after = seeding.get_generator_states()
    assert before["python"] == after["python"]
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["numpy"][1], after["numpy"][1])


def test_the_derived_numbers_never_change() -> None:
    """A run that was saved by an earlier version must go on with the same numbers."""
    assert seeding.derive(1, seeding.ORDER, 0, 0) == 8365554143072569811
    assert seeding.seed_streams(1, seeding.MODEL, 5, 0) == 5238369417806763677


def test_states_come_back_from_plain_data() -> None:
    states = seeding.get_generator_states()
    first = draw()
    seeding.set_generator_states(states)
    assert draw() == first


@pytest.mark.parametrize("counters", [(None,), (None, 3), (5, None, 2)])
def test_hashing_ahead_changes_no_number(counters: tuple[int | None, ...]) -> None:
    seed_at = seeding.build_seeder(-7, seeding.MODEL, *counters)
    for n in (0, 1, 2, seeding.AHEAD - 1, seeding.AHEAD, 1000, 999, 2**40):
        random.gauss(0, 1)  # leaves a second number behind, which seeding drops
        word = seed_at(n)
        drawn = torch.rand(()), random.gauss(0, 1), np.random.rand()
        assert word == seeding.seed_streams(-7, seeding.MODEL, *(n if c is None else c for c in counters))
        assert drawn == (torch.rand(()), random.gauss(0, 1), np.random.rand())


@pytest.mark.parametrize("drawn", [(), ("python",), ("numpy",), ("torch",), ("python", "numpy", "torch")])
def test_a_stream_that_was_drawn_from_is_no_number(drawn: tuple[str, ...]) -> None:
    seeding.seed_streams(3, seeding.MODEL, 4)
    draw = {"python": random.random, "numpy": np.random.rand, "torch": lambda: float(torch.rand(()))}
    for name in drawn:
        draw[name]()
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    states = seeding.get_short_states()
    assert {name for name, state in states.items() if not isinstance(state, int)} == set(drawn)
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1][1]).all()
    assert torch.equal(torch.get_rng_state(), before[2])
    expected = {name: [one() for _ in range(3)] for name, one in draw.items()}
    seeding.set_generator_states(states)
    assert {name: [one() for _ in range(3)] for name, one in draw.items()} == expected


def numpy_after(draw: Callable[[], Any]) -> Any:
    """What a save says of numpy's stream after a draw."""
    seeding.seed_streams(3, seeding.MODEL, 4)
    draw()
    return seeding.get_short_states()["numpy"]


def test_only_a_stream_of_numpy_just_as_seeded_is_a_number() -> None:
    """One that stands at the end of its words again, or has a second normal number ready, isn't."""
    for n in range(300):
        seeding.seed_streams(n, seeding.MODEL, n)
        seed = seeding.get_short_states()["numpy"]
        words, position = np.random.RandomState(seed).get_state()[1:3]
        assert isinstance(seed, int)
        assert (np.random.get_state()[1] == words).all()
        assert np.random.get_state()[2] == position
    as_seeded = numpy_after(lambda: None)
    assert isinstance(as_seeded, int)
    assert numpy_after(lambda: np.random.seed(as_seeded)) == as_seeded
    assert isinstance(numpy_after(lambda: np.random.seed(as_seeded + 1)), list)
    whole = numpy_after(lambda: np.random.bytes(4 * 624))
    assert whole[2] == 624, "else it tells nothing"
    kind, words, position, _, _ = np.random.RandomState(as_seeded).get_state()
    assert isinstance(numpy_after(lambda: np.random.set_state((kind, words, position, 1, 0.5))), list)
    for place in (0, 1, 300, 623):
        other = words.copy()
        other[place] ^= 1
        assert isinstance(numpy_after(lambda other=other: np.random.set_state((kind, other, position))), list)


def test_the_streams_are_those_of_the_public_seeding_functions() -> None:
    random.gauss(0, 1)
    word = seeding.seed_streams(1, seeding.MODEL, 2)
    drawn = torch.rand(()), random.random(), random.gauss(0, 1), np.random.rand()
    for_torch, for_python, for_numpy = struct.unpack_from(
        "<QQI", hashlib.blake2b(struct.pack("<5Q", 1, seeding.MODEL, 2, 0, 0), digest_size=24).digest()
    )
    torch.manual_seed(for_torch >> 1)
    random.seed(for_python)
    np.random.seed(for_numpy)
    assert word == for_torch >> 1
    assert drawn == (torch.rand(()), random.random(), random.gauss(0, 1), np.random.rand())
