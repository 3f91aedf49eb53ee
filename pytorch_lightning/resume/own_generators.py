"""The generator objects that the model and the callbacks draw from."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from pytorch_lightning.data.generators import find_generators, set_state_of, state_of
from pytorch_lightning.resume.plain_values import Decoder, Encoder
from pytorch_lightning.run.hooks import LOADERS
from pytorch_lightning.run.owners import attributes_of


def generators_of_data(*loaders: Any) -> list[Any]:
    """The generators that loaders, the user's or those made of them, and what they are made of reach."""
    parts = ("dataset", "collate_fn", "sampler", "batch_sampler", "generator")
    inner = [getattr(loader, "_loader", loader) for loader in loaders]
    roots = [getattr(loader, part, None) for loader in inner for part in parts]
    return [generator for root in [*roots, *inner] for generator in find_generators(root)]


def generators_of_model(module: nn.Module, callbacks: Sequence[Any], loader: Any) -> list[Any]:
    """The generators that the code and the attributes of a module, its submodules and the callbacks reach, without
    those that the training data draw from."""
    of_data = {id(generator) for generator in generators_of_data(loader)}
    found: dict[int, Any] = {}
    for owner in (*module.modules(), *callbacks):
        if type(owner).__module__.startswith(("torch.", "pytorch_lightning.")):
            continue
        # first what it holds, then what the code of its class uses
        for root in (*attributes_of(owner).values(), type(owner)):
            if not isinstance(root, nn.Module) and not str(type(root).__module__).startswith("pytorch_lightning."):
                found.update((id(g), g) for g in find_generators(root) if id(g) not in of_data)
    return list(found.values())


@contextlib.contextmanager
def leaving_generators(module: nn.Module) -> Iterator[None]:
    """A scope that leaves as they were the generators that the code of a module reaches, its loaders' code as well."""
    # the class keeps the code of its loaders in a wrapper of the library's own
    getters = [getattr(getattr(type(module), name), "fget", None) for name in LOADERS]
    cells = [cell.cell_contents for getter in getters for cell in getattr(getter, "__closure__", None) or ()]
    generators = [*generators_of_model(module, (), None), *(g for cell in cells for g in find_generators(cell))]
    states = [copy.deepcopy(state_of(generator)) for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            set_state_of(generator, state)


def states_of(generators: list[Any]) -> dict[str, Any]:
    """Their states, as a checkpoint can hold them."""
    encoder = Encoder(float("inf"))
    states = [encoder.add(state_of(generator)) for generator in generators]
    return {"nodes": encoder.nodes, "states": states} if states else {}


def set_states_of(generators: list[Any], saved: dict[str, Any]) -> None:
    """Put back what ``states_of`` gave, where there are as many."""
    if saved and len(saved["states"]) == len(generators):
        import torch

        decoder = Decoder(saved["nodes"], torch.device("cpu"), lambda address: False)
        for generator, state in zip(generators, saved["states"], strict=True):
            set_state_of(generator, decoder.value(state))
