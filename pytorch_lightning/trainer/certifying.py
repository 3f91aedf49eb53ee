"""Gives a fit its certificate, where the options ask for one."""

from typing import Any, cast

from pytorch_lightning.data.loader import ReplayableLoader
from pytorch_lightning.data.witness import Witness
from pytorch_lightning.resume.certificate import Certificate
from pytorch_lightning.resume.origin import code_of, data_of, options_of, versions_of
from pytorch_lightning.resume.rolling import RollingSaves
from pytorch_lightning.trainer.basis import Basis, FitRequest
from pytorch_lightning.trainer.replaying import HARMLESS


def certify(request: FitRequest, basis: Basis, rolling: RollingSaves) -> ReplayableLoader:
    """Let ``rolling`` write a line for each save; returns the training loader that notes what it gives."""
    witness = Witness(basis.loader)
    loader = basis.attributes.loader
    origin: dict[str, Any] = {
        "code": code_of(request.module, loader),
        "data": data_of(loader),
        "options": options_of(request.config),
        "seed": basis.seed,
        "virtual_ranks": basis.share.nb,
        "processes": request.strategy.processes.nb,
        "callbacks": [c.state_name for c in request.callbacks if type(c).__name__ not in HARMLESS],
        "versions": versions_of(basis.strategy.device),
    }
    progress, processes = request.run.progress, request.strategy.processes
    rolling.certificate = Certificate(witness, progress, processes, rolling.folder, origin)
    return cast("ReplayableLoader", witness)
