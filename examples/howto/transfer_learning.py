"""Transfer learning: a network that reads clean digits learns to read noisy ones from forty images."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import Unfreeze
from pytorch_lightning.data.digits import SHIPPED, Digits


def images(first, nb, noise, train=True):
    """Per digit ``nb`` images from number ``first`` on, of shape (1, 14, 14), and their labels."""
    digits = Digits(SHIPPED, train)  # 6,000 of MNIST, in the package
    places = torch.cat([(digits.targets == c).nonzero()[first : first + nb, 0] for c in range(10)])
    clean = nn.functional.avg_pool2d(digits.data[places].float()[:, None] / 255, 2)
    draw = torch.Generator().manual_seed(first)
    return TensorDataset(clean + noise * torch.randn(clean.shape, generator=draw), digits.targets[places])


class Reader(LightningModule):
    """A backbone, which a head of one layer follows."""

    def __init__(self, tng_images, val_images):
        super().__init__()
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(196, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.head = nn.Linear(32, 10)
        self.tng_images, self.val_images = tng_images, val_images

    def forward(self, images):
        return self.head(self.backbone(images))

    def training_step(self, data_batch, batch_nb):
        images, labels = data_batch
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, data_batch, batch_nb):
        images, labels = data_batch
        return {"nb_right": (self(images).argmax(1) == labels).sum(), "nb": len(labels)}

    def validation_end(self, outputs):
        return {"val_acc": sum(o["nb_right"] for o in outputs) / sum(o["nb"] for o in outputs)}

    def configure_optimizers(self):
        trained = [p for p in self.parameters() if p.requires_grad]  # Unfreeze gives it the rest
        return torch.optim.Adam(trained, lr=0.005)

    @property
    def tng_dataloader(self):
        return DataLoader(self.tng_images, batch_size=10, shuffle=True)

    @property
    def val_dataloader(self):
        return DataLoader(self.val_images, batch_size=250)


def fit(model, name, nb_epochs, callbacks=()):
    trainer = Trainer(
        max_nb_epochs=nb_epochs, callbacks=callbacks, default_save_path=f"transfer/{name}", print_weights_summary=False
    )
    trainer.fit(model)
    return trainer.metrics["val_acc"]


if __name__ == "__main__":
    seed_everything(0)
    clean = Reader(images(0, 200, noise=0), images(0, 100, noise=0, train=False))
    print(f"{'clean digits':16} accuracy {fit(clean, 'clean', nb_epochs=4):.2f}")
    torch.save(clean.backbone.state_dict(), "backbone.pt")

    few, test = images(400, 4, noise=0.3), images(0, 100, noise=0.3, train=False)
    for name, is_given, callbacks in (
        ("from scratch", False, []),
        ("frozen backbone", True, [Unfreeze({"backbone": 1000})]),  # an epoch that never comes
        ("unfrozen later", True, [Unfreeze({"backbone": 5}, lr_factor=0.1)]),
    ):
        seed_everything(1)
        model = Reader(few, test)
        if is_given:
            model.backbone.load_state_dict(torch.load("backbone.pt", weights_only=True))
        print(f"{name:16} accuracy {fit(model, name, nb_epochs=15, callbacks=callbacks):.2f}")
