"""The examples of the interface's description run as they are printed there.

The code between the marks is the user's own, to the letter. It is mended only where it can't run, and says so.
"""

# ruff: noqa: RET504, RUF059

import csv
import gzip
import os
from argparse import ArgumentParser, Namespace
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from test_tube import HyperOptArgumentParser
from torch.optim import Adam
from torchvision import transforms

from pytorch_lightning import LightningModule, Trainer, add_default_args
from pytorch_lightning.data.digits import FILES, SHIPPED
from tests.recorder import quiet_trainer


class MNIST(torchvision.datasets.MNIST):
    """torchvision's, with a third entry: the examples unpack ``x, y, z``."""

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return image, label, index


class Interface(LightningModule):
    """Every required and optional hook of the description, in its order."""

    def __init__(self, hparams: Any) -> None:
        super().__init__(hparams)
        self.layer = torch.nn.Linear(hparams.in_features, hparams.out_features)

    def forward(self, x: Any) -> Any:
        return self.layer(x.flatten(1)) / 28

    def loss(self, out: Any, x: Any) -> Any:
        return (out.mean(dim=1) - x.flatten(1).mean(dim=1)).pow(2).mean()

    # fmt: off
    # ------------------------------------------------------------------ training_step
    def training_step(self, data_batch, batch_nb):
        x, y, z = data_batch

        # implement your own
        out = self.forward(x)
        loss = self.loss(out, x)

        output = {
            'loss': loss, # required
            'prog': {'tng_loss': loss, 'batch_nb': batch_nb} # optional
        }

        # return a dict
        return output

    # ------------------------------------------------------------------ validation_step
    def validation_step(self, data_batch, batch_nb):
        x, y, z = data_batch

        # implement your own
        out = self.forward(x)
        loss = self.loss(out, x)

        # calculate acc
        labels_hat = torch.argmax(out, dim=1)
        val_acc = torch.sum(y == labels_hat).item() / (len(y) * 1.0)

        # all optional...
        # return whatever you need for the collation function validation_end
        output = OrderedDict({
            'val_loss': loss,  # mended: it is loss_val there, a name that isn't defined
            'val_acc': torch.tensor(val_acc), # everything must be a tensor
        })

        # return an optional dict
        return output

    # ------------------------------------------------------------------ validation_end
    def validation_end(self, outputs):
        """
        Called at the end of validation to aggregate outputs
        :param outputs: list of individual outputs of each validation step
        :return:
        """
        val_loss_mean = 0
        val_acc_mean = 0
        for output in outputs:
            val_loss_mean += output['val_loss']
            val_acc_mean += output['val_acc']

        val_loss_mean /= len(outputs)
        val_acc_mean /= len(outputs)
        tqdm_dic = {'val_loss': val_loss_mean.item(), 'val_acc': val_acc_mean.item()}
        return tqdm_dic

    # ------------------------------------------------------------------ configure_optimizers
    # most cases
    def configure_optimizers(self):
        opt = Adam(self.parameters(), lr=0.01)  # mended: there it is given no parameters
        return [opt]

    # ------------------------------------------------------------------ get_save_dict
    def get_save_dict(self):
        # 99% of use cases this is all you need to return
        checkpoint = {'state_dict': self.state_dict()}
        return checkpoint

    # ------------------------------------------------------------------ load_model_specific
    def load_model_specific(self, checkpoint):
        # you defined 'state_dict' in get_save_dict()
        self.load_state_dict(checkpoint['state_dict'])

    # ------------------------------------------------------------------ tng_dataloader
    @property
    def tng_dataloader(self):
        if self._tng_dataloader is None:
            try:
                transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (1.0,))])
                # mended: the root is '/path/to/mnist/' there, here and in the next two
                dataset = MNIST(root=self.hparams.data_root, train=True, transform=transform, download=True)
                loader = torch.utils.data.DataLoader(
                    dataset=dataset,
                    batch_size=self.hparams.batch_size,
                    shuffle=True
                )
                self._tng_dataloader = loader
            except Exception as e:
                raise e

        return self._tng_dataloader

    # ------------------------------------------------------------------ val_dataloader
    @property
    def val_dataloader(self):
        if self._val_dataloader is None:
            try:
                transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (1.0,))])
                dataset = MNIST(root=self.hparams.data_root, train=False, transform=transform, download=True)
                loader = torch.utils.data.DataLoader(
                    dataset=dataset,
                    batch_size=self.hparams.batch_size,
                    shuffle=True
                )
                self._val_dataloader = loader
            except Exception as e:
                raise e

        return self._val_dataloader

    # ------------------------------------------------------------------ test_dataloader
    @property
    def test_dataloader(self):
        if self._test_dataloader is None:
            try:
                transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (1.0,))])
                dataset = MNIST(root=self.hparams.data_root, train=False, transform=transform, download=True)
                loader = torch.utils.data.DataLoader(
                    dataset=dataset,
                    batch_size=self.hparams.batch_size,
                    shuffle=True
                )
                self._test_dataloader = loader
            except Exception as e:
                raise e

        return self._test_dataloader

    # ------------------------------------------------------------------ update_tng_log_metrics
    def update_tng_log_metrics(self, logs):
        # modify or add to logs
        return logs

    # ------------------------------------------------------------------ add_model_specific_args
    @staticmethod
    def add_model_specific_args(parent_parser, root_dir):
        parser = HyperOptArgumentParser(strategy=parent_parser.strategy, parents=[parent_parser])

        # param overwrites
        # parser.set_defaults(gradient_clip=5.0)

        # network params
        parser.opt_list('--drop_prob', default=0.2, options=[0.2, 0.5], type=float, tunable=False)
        parser.add_argument('--in_features', default=28*28)
        parser.add_argument('--out_features', default=10)
        parser.add_argument('--hidden_dim', default=50000) # use 500 for CPU, 50000 for GPU to see speed difference

        # data
        parser.add_argument('--data_root', default=os.path.join(root_dir, 'mnist'), type=str)

        # training params (opt)
        parser.opt_list('--learning_rate', default=0.001, type=float, options=[0.0001, 0.0005, 0.001, 0.005],
                        tunable=False)
        parser.opt_list('--batch_size', default=256, type=int, options=[32, 64, 128, 256], tunable=False)
        parser.opt_list('--optimizer_name', default='adam', type=str, options=['adam'], tunable=False)
        return parser
    # fmt: on


class Gan(Interface):
    """The second example of ``configure_optimizers``."""

    def __init__(self, hparams: Any) -> None:
        super().__init__(hparams)
        self.discriminator = torch.nn.Linear(hparams.out_features, hparams.out_features)

    def forward(self, x: Any) -> Any:
        return self.discriminator(super().forward(x))

    # fmt: off
    # gan example
    def configure_optimizers(self):
        generator_opt = Adam(self.layer.parameters(), lr=0.01)  # mended: parameters, here and in the next one
        disriminator_opt = Adam(self.discriminator.parameters(), lr=0.02)
        return [generator_opt, disriminator_opt]
    # fmt: on


@pytest.fixture(scope="module")
def root_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with digits where torchvision looks for them."""
    root = tmp_path_factory.mktemp("project")
    raw = root / "mnist" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in (*FILES[True], *FILES[False]):
        (raw / name).write_bytes(gzip.decompress((SHIPPED / f"{name}.gz").read_bytes()))
    return root


def read_hparams(root_dir: Path, words: tuple[str, ...] = ("--batch_size", "64")) -> Namespace:
    parent_parser = HyperOptArgumentParser(strategy="grid_search", add_help=False)
    add_default_args(parent_parser, str(root_dir))
    return Interface.add_model_specific_args(parent_parser, str(root_dir)).parse_args(list(words))


FEW = {"train_percent_check": 0.1, "val_percent_check": 0.3, "test_percent_check": 0.3}


def test_the_examples_make_a_model_that_trains(tmp_path: Path, root_dir: Path) -> None:
    model = Interface(read_hparams(root_dir))
    trainer = quiet_trainer(tmp_path, max_nb_epochs=2, nb_sanity_val_steps=1, add_log_row_interval=3, **FEW)
    assert trainer.fit(model) == 1
    assert (trainer.nb_tng_batches, trainer.nb_val_batches) == (7, 4)

    with open(tmp_path / "logs/Interface/version_0/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["tng_loss"]) for row in rows if row["tng_loss"]]
    assert losses[-1] < losses[0]
    assert [row["batch_nb"] for row in rows if row["tng_loss"]] == ["0", "3", "6"] * 2
    assert len([row for row in rows if row["val_loss"] and row["val_acc"]]) == 2
    assert set(trainer.tqdm_metrics) == {"tng_loss", "batch_nb", "val_loss", "val_acc"}
    assert set(trainer.test()) == {"val_loss", "val_acc"}


def test_its_checkpoint_holds_what_get_save_dict_gave_and_is_restored_by_load_model_specific(
    tmp_path: Path, root_dir: Path
) -> None:
    model = Interface(read_hparams(root_dir))
    trainer = quiet_trainer(tmp_path, **FEW)
    trainer.fit(model)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    checkpoint = torch.load(tmp_path / "x.ckpt", weights_only=True)
    assert list(checkpoint["state_dict"]) == ["layer.weight", "layer.bias"]
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (1, 7)

    tags = tmp_path / "logs/Interface/version_0/meta_tags.csv"
    again = Interface.load_from_metrics(weights_path=tmp_path / "x.ckpt", tags_csv=tags, on_gpu=False)
    assert torch.equal(again.layer.weight, model.layer.weight)
    assert (again.hparams.batch_size, again.hparams.learning_rate) == (64, 0.001)


def test_the_example_of_two_optimizers_trains_both(tmp_path: Path, root_dir: Path) -> None:
    model = Gan(read_hparams(root_dir))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trainer = quiet_trainer(tmp_path, **FEW)
    trainer.fit(model)
    assert [o.param_groups[0]["lr"] for o in trainer.optimizers] == [0.01, 0.02]
    assert not any(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def test_the_example_of_add_model_specific_args_reads_a_command_line(root_dir: Path) -> None:
    hparams = read_hparams(root_dir, ("--learning_rate", "0.005", "--gradient_clip", "0.5", "--max_nb_epochs", "3"))
    assert (hparams.learning_rate, hparams.batch_size, hparams.hidden_dim) == (0.005, 256, 50000)
    assert hparams.data_root == str(root_dir / "mnist")
    trainer = Trainer.from_args(hparams)
    assert (trainer.gradient_clip, trainer.max_nb_epochs) == (0.5, 3)


def test_its_parser_may_have_a_plain_one_as_its_parent(root_dir: Path) -> None:
    parent_parser = ArgumentParser(add_help=False)
    add_default_args(parent_parser, str(root_dir))
    parser = Interface.add_model_specific_args(parent_parser, str(root_dir))
    assert parser.parse_args(["--drop_prob", "0.5"]).drop_prob == 0.5


def test_hparams_are_available_anywhere_in_the_model(tmp_path: Path, root_dir: Path) -> None:
    seen = []

    class Looking(Interface):
        def on_epoch_start(self) -> None:
            seen.append(self.hparams.optimizer_name)

    quiet_trainer(tmp_path, **FEW).fit(Looking(read_hparams(root_dir)))
    assert seen == ["adam"]
