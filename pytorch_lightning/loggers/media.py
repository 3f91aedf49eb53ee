"""Figures, images, texts and files that a run logs: each is a file in its folder, which loggers may show."""

import io
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from pytorch_lightning.errors import MisconfigurationException, describe
from pytorch_lightning.loggers.logger import MEDIA


def write(folder: Path, method: str, name: str, value: Any, step: int) -> Path:
    """Write what ``method`` was given to ``folder/media``; logged again after a resume it replaces itself."""
    parts = str(name).split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise MisconfigurationException(f"{method} needs a name, for example 'confusion'; received {name!r}.")
    stem = folder.joinpath("media", *(re.sub(r"[^\w\-. ]", "_", part) for part in parts))
    stem.parent.mkdir(parents=True, exist_ok=True)
    suffix = {"image": ".png", "text": ".txt"}.get(MEDIA[method]) or Path(str(value)).suffix
    path = stem.with_name(f"{stem.name}_{step}{suffix}")
    temporary = path.with_name(f".{path.name}.tmp")
    if MEDIA[method] == "image":
        temporary.write_bytes(_png(value))
    elif MEDIA[method] == "text":
        temporary.write_text(str(value))
    else:
        shutil.copyfile(value, temporary)
    os.replace(temporary, path)
    return path


def _png(value: Any) -> bytes:
    file = io.BytesIO()
    if hasattr(value, "savefig"):
        value.savefig(file, format="png")
    else:
        _image(value).save(file, format="PNG")
    return file.getvalue()


def _image(value: Any) -> Any:
    from PIL import Image
    from torchvision.transforms.functional import to_pil_image

    if isinstance(value, Image.Image):
        return value
    pixels = torch.as_tensor(value)
    if pixels.ndim == 3 and not isinstance(value, torch.Tensor):
        pixels = pixels.permute(2, 0, 1)
    is_shape = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4))
    is_kind = pixels.dtype == torch.uint8 or (
        pixels.is_floating_point() and bool(((pixels >= 0) & (pixels <= 1)).all())
    )
    if not is_shape or not is_kind:
        raise MisconfigurationException(
            "an image is one of PIL, a tensor (channels, height, width) or an array (height, width, channels) of 1, 3"
            f" or 4 channels, of floats from 0 to 1 or of uint8; received {describe(value)}."
        )
    return to_pil_image(pixels.detach().cpu())


def show(writer: Any, kind: str, name: str, path: Path, step: int) -> bool:
    """Show it by a SummaryWriter. False where that can't."""
    if kind == "image":
        import numpy
        from PIL import Image

        with Image.open(path) as image:
            writer.add_image(name, numpy.asarray(image.convert("RGB")), step, dataformats="HWC")
    elif kind == "text":
        writer.add_text(name, path.read_text(), step)
    return kind != "file"
