"""Fine-tuning with an average of the weights: a network that knows the digits 0 to 4 learns all ten.

``python fine_tuning.py`` first trains on five digits, which makes a backbone, then on a few of all ten: the head from
the start, the backbone from the third epoch on with a tenth of the rate. Validation and test use an exponential moving
average of the weights. About half a minute on a CPU; started again after it was killed it resumes.
"""

import os
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, Subset
from torchvision import transforms

from pytorch_lightning import LightningModule, Trainer, add_default_args, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint, Unfreeze, WeightAveraging
from pytorch_lightning.data.digits import mnist


class Digits(LightningModule):
    """A small convolutional network: a backbone and a head of ten logits."""

    def __init__(self, hparams: Namespace, only: int = 10) -> None:
        super().__init__(hparams)
        self.only = only
        self.backbone = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten()),
        )
        self.head = nn.Linear(16 * 6 * 6, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(images))
        return logits

    def training_step(self, data_batch: tuple[Tensor, Tensor], batch_nb: int) -> Tensor:
        images, labels = data_batch
        return F.cross_entropy(self(images), labels)

    def validation_step(self, data_batch: tuple[Tensor, Tensor], batch_nb: int) -> dict[str, Tensor]:
        images, labels = data_batch
        logits = self(images)
        return {"val_loss": F.cross_entropy(logits, labels), "val_acc": (logits.argmax(1) == labels).float().mean()}

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.parameters() if p.requires_grad]  # Unfreeze gives it the rest
        optimizer = optim.AdamW(trained, lr=self.hparams.learning_rate)
        schedule = optim.lr_scheduler.OneCycleLR(optimizer, 2 * self.hparams.learning_rate, self.trainer.nb_total_steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def data(self, train: bool) -> Subset[Any]:
        digits = mnist(root=self.hparams.data_root, train=train, transform=transforms.ToTensor())
        labels = [int(label) for label in digits.targets]
        return Subset(digits, [i for i, label in enumerate(labels) if label < self.only][: self.hparams.nb_digits])

    @property
    def tng_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.data(train=True), batch_size=self.hparams.batch_size, shuffle=True)

    @property
    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.data(train=False), batch_size=250)

    @property
    def test_dataloader(self) -> DataLoader[Any]:
        return self.val_dataloader


def main(hparams: Namespace) -> None:
    seed_everything(hparams.seed)  # the weights that the networks begin with
    folder = Path(hparams.folder)
    first = Digits(hparams, only=5)
    backbone = {"default_save_path": folder / "backbone", "max_nb_epochs": 1, "resume": "auto"}
    Trainer.from_args(hparams, **backbone).fit(first)

    model = Digits(hparams)
    model.backbone.load_state_dict(first.backbone.state_dict())
    trainer = Trainer.from_args(
        hparams,
        default_save_path=folder / "all",
        checkpoint_callback=ModelCheckpoint(folder / "best", monitor="val_acc", save_top_k=1),
        callbacks=[Unfreeze({"backbone": 2}, lr_factor=0.1), WeightAveraging("ema", decay=0.9)],
        resume="auto",
    )
    trainer.fit(model)
    if hparams.fast_dev_run:  # keeps nothing
        return
    result = trainer.test(ckpt="best", weights="average")
    print(f"metrics         {trainer.folder}/metrics.csv")
    print(f"checkpoint      {trainer.checkpoint_callback.best_path}")
    print(f"test accuracy   {result['val_acc']:.3f}")


if __name__ == "__main__":
    root_dir = os.path.dirname(os.path.realpath(__file__))

    parser = ArgumentParser(usage="%(prog)s [--option value ...]", formatter_class=ArgumentDefaultsHelpFormatter)
    add_default_args(parser, root_dir)
    parser.add_argument("--learning_rate", default=0.002, type=float, help="of the head")
    parser.add_argument("--batch_size", default=32, type=int, help="digits in a batch")
    parser.add_argument("--nb_digits", default=1000, type=int, help="how many are trained on, and tested with")
    parser.add_argument("--data_root", default=os.path.join(root_dir, "mnist"), type=str, help="folder of the digits")
    parser.add_argument("--folder", default="fine_tuning", type=str, help="folder of the runs")
    parser.set_defaults(max_nb_epochs=5, seed=1)
    main(parser.parse_args())
