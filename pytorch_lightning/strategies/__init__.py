"""Strategies: where a module runs. ``distributed_backend`` takes a name, or one of these classes with options."""

from typing import Any

from pytorch_lightning.strategies.data_parallel import DataParallel as DataParallel
from pytorch_lightning.strategies.distributed import Distributed as Distributed
from pytorch_lightning.strategies.fully_sharded import FullySharded as FullySharded
from pytorch_lightning.strategies.single_device import SingleDevice as SingleDevice
from pytorch_lightning.strategies.strategy import Strategy as Strategy

STRATEGIES: dict[Any, type[Strategy]] = {
    None: SingleDevice,
    "dp": DataParallel,
    "ddp": Distributed,
    "fsdp": FullySharded,
}
"""The strategies by the names that ``distributed_backend`` takes."""


def strategy_of(backend: Any) -> Strategy | type[Strategy]:
    """The strategy object, or its class, that ``backend`` means: to ask what it needs."""
    return backend if isinstance(backend, Strategy) else STRATEGIES.get(backend, SingleDevice)


def build_strategy(backend: Any) -> Strategy:
    """The strategy called ``backend``; one that a user made is taken as it is."""
    return backend if isinstance(backend, Strategy) else STRATEGIES[backend]()
