"""Segmentation: a class for each pixel, a small U-Net, and the intersection over union."""

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from pytorch_lightning import LightningModule, Trainer, seed_everything

SIZE = 32


class Discs(Dataset):
    """Bright discs on noise, and masks that say where they are. Images are made when they are asked for."""

    def __init__(self, nb, seed):
        self.nb, self.seed = nb, seed

    def __len__(self):
        return self.nb

    def __getitem__(self, i):
        generator = torch.Generator().manual_seed(1000 * self.seed + i)
        x, y, radius = (torch.rand(3, generator=generator) * torch.tensor([24, 24, 6]) + 4).tolist()
        rows, columns = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
        mask = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        return mask + 0.7 * torch.randn(SIZE, SIZE, generator=generator), mask


def block(inputs, outputs):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class UNet(LightningModule):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = block(1, 8), block(8, 16)
        self.up = block(16 + 8, 8)
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, images):
        fine = self.down1(images[:, None])
        coarse = self.down2(nn.functional.max_pool2d(fine, 2))
        wide = nn.functional.interpolate(coarse, scale_factor=2)
        return self.head(self.up(torch.cat([wide, fine], 1)))[:, 0]

    def training_step(self, data_batch, batch_nb):
        images, masks = data_batch
        return nn.functional.binary_cross_entropy_with_logits(self(images), masks.float())

    def validation_step(self, data_batch, batch_nb):
        images, masks = data_batch
        found = self(images) > 0
        return {"both": (found & masks).sum(), "either": (found | masks).sum()}

    def validation_end(self, outputs):
        # over all pixels of all images: a mean of batches would weigh a small last one like the others
        return {"iou": sum(o["both"] for o in outputs) / sum(o["either"] for o in outputs)}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    @property
    def tng_dataloader(self):
        return DataLoader(Discs(400, seed=0), batch_size=16, shuffle=True)

    @property
    def val_dataloader(self):
        return DataLoader(Discs(70, seed=1), batch_size=16)


if __name__ == "__main__":
    seed_everything(0)
    trainer = Trainer(max_nb_epochs=4, print_weights_summary=False, default_save_path="segmentation")
    trainer.fit(UNet())
    print(f"intersection over union {trainer.metrics['iou']:.3f}")
