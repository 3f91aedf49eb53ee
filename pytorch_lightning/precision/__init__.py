"""The precisions by name."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from pytorch_lightning.precision.precision import Precision

NAMES = ("32", "64", "bf16", "16", "bf16-true", "16-true")


def build_precision(name: str, device: "torch.device") -> "Precision":
    """The precision called ``name`` (one of ``NAMES``) for ``device``."""
    from pytorch_lightning.precision.bfloat16 import BFloat16
    from pytorch_lightning.precision.float16 import Float16
    from pytorch_lightning.precision.full import DTYPES, Full

    if name in DTYPES:
        return Full(name)
    return BFloat16(device) if name == "bf16" else Float16(device)
