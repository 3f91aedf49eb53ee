"""The generator objects that the model draws from."""

from typing import Any

from torch import nn

from pytorch_lightning.data.generators import find_generators, set_state_of, state_of
from pytorch_lightning.resume.plain_values import Decoder, Encoder
from pytorch_lightning.run.owners import attributes_of


def generators_of_model(module: nn.Module, loader: Any) -> list[Any]:
    """The generators that the code and the attributes of a module and its submodules reach, without those that the
    training data draw from."""
    parts = ("dataset", "collate_fn", "sampler", "batch_sampler", "generator")
    of_data = {id(g) for part in parts for g in find_generators(getattr(loader, part, None))}
    of_data |= {id(g) for g in find_generators(loader)}
    found: dict[int, Any] = {}
    for submodule in module.modules():
        if type(submodule).__module__.startswith("torch."):
            continue
        # first what it holds, then what the code of its class uses
        for root in (*attributes_of(submodule).values(), type(submodule)):
            if not isinstance(root, nn.Module):
                found.update((id(g), g) for g in find_generators(root) if id(g) not in of_data)
    return list(found.values())


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
