"""Pictures that are augmented by PIL when they are asked for, and a network for them: for REAL."""

import random
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
