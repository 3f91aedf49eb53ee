"""Pictures that are augmented by PIL when they are asked for, and networks for them: of REAL and W5."""

import os
import random
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

BATCH = 16
EPOCHS = 3


class Pictures(Dataset[Any]):
    """``nb`` pictures of 32 x 32: padded, cropped, turned, mirrored and made brighter or darker anew each time."""

    def __init__(self, nb: int) -> None:
        draws = np.random.default_rng(1)
        self.pixels = draws.integers(0, 256, (500, 32, 32, 3), dtype=np.uint8)
        self.nb = nb

    def __len__(self) -> int:
        return self.nb

    def __getitem__(self, i: int) -> Any:
        picture = ImageOps.expand(Image.fromarray(self.pixels[i % 500]), 4)
        left, top = random.randrange(9), random.randrange(9)
        picture = picture.crop((left, top, left + 32, top + 32))
        picture = picture.rotate(random.uniform(-10, 10), Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            picture = ImageOps.mirror(picture)
        pixels = np.asarray(picture, dtype=np.float32) * random.uniform(0.8, 1.2) / 255
        return torch.from_numpy(pixels).permute(2, 0, 1), i % 10


def loader(nb: int, nb_workers: int, persistent: bool) -> DataLoader[Any]:
    """``nb`` batches an epoch."""
    return DataLoader(Pictures(nb * BATCH), BATCH, shuffle=True, num_workers=nb_workers, persistent_workers=persistent)


class Residual(nn.Module):
    """Two convolutions and the way around them."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside),
        )  # fmt: skip
        self.around: nn.Module = nn.Identity()
        if inside != outside:
            self.around = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.first(x) + self.around(x))


def network(width: int = 16) -> nn.Module:
    """ResNet18 for small pictures: a 3 x 3 convolution first, and no pooling after it."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inside = width
    for outside, stride in ((width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)):
        layers += [Residual(inside, outside, stride), Residual(outside, outside, 1)]
        inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 10))


def optimizer_of(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)


DIGITS_BATCH = 32


class Digits(Dataset[Any]):
    """``nb`` digits, turned, scaled and made noisy anew whenever they are asked for."""

    def __init__(self, nb: int) -> None:
        from pytorch_lightning.data.digits import Digits as Shipped

        digits = Shipped(str(files("pytorch_lightning.data.digits")))
        self.pictures = [(digits.data[i].numpy(), int(digits.targets[i])) for i in range(1000)]
        self.nb = nb

    def __len__(self) -> int:
        return self.nb

    def __getitem__(self, i: int) -> Any:
        pixels, y = self.pictures[i % 1000]
        angle, zoom = torch.rand(2).tolist()
        picture = Image.fromarray(pixels).resize((56, 56), Image.Resampling.BICUBIC)
        picture = picture.rotate(30 * angle - 15, Image.Resampling.BICUBIC)
        side = int(44 + 12 * zoom)
        picture = picture.crop((0, 0, side, side)).resize((28, 28), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255) + 0.05 * torch.randn(28, 28), y


def digits_loader(data: Digits, nb_workers: int = 0) -> DataLoader[Any]:
    return DataLoader(data, DIGITS_BATCH, shuffle=True, num_workers=nb_workers)


def digits_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def numbers_of_workers() -> list[int]:
    """Those that are tried by hand: 1, 2, 4, ... up to the number of processors."""
    nb = len(os.sched_getaffinity(0))
    return sorted({*(2**n for n in range(nb.bit_length()) if 2**n <= nb), nb})
