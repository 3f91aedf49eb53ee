"""Random numbers as functions of counters."""

import random

import numpy as np
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
