"""Keras on torch: ``compile`` and ``fit`` of a layer model."""

import os

os.environ["KERAS_BACKEND"] = "torch"

from typing import Any

import keras

from benchmarks import workloads as w


def model() -> Any:
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((32,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(1)])
    net.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse")
    return net


def W1(nb: int) -> None:
    model().fit(w.w1_loader(nb), epochs=1, verbose=0)


def W1list(nb: int) -> None:
    # it takes no list of batches, but a generator of them
    model().fit((batch for batch in w.w1_batches(nb)), steps_per_epoch=nb, epochs=1, verbose=0)


def W4(nb: int) -> None:
    model().evaluate(w.w1_loader(nb, shuffle=False), verbose=0)
