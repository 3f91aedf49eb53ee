"""The model of ``new_project_templates`` in plain PyTorch, to compare line by line.

Same network, data, optimizer, early stopping and best checkpoint. What the Trainer adds to this is not here: the bar,
the log, hyperparameters beside the weights, other precisions and devices, resuming, and all its options.
"""

import math
import os
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, random_split
from torchvision import transforms

from pytorch_lightning.data.digits import mnist


class Model(nn.Module):
    """One hidden layer between the pixels of a digit and its ten classes."""

    def __init__(self, hparams: Namespace) -> None:
        super().__init__()
        self.hidden = nn.Linear(28 * 28, hparams.hidden_dim)
        self.norm = nn.BatchNorm1d(hparams.hidden_dim)
        self.dropout = nn.Dropout(hparams.drop_prob)
        self.output = nn.Linear(hparams.hidden_dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(x.flatten(start_dim=1))
        x = F.relu(self.norm(self.hidden(x)))
        logits: Tensor = self.output(self.dropout(x))
        return logits


Loader = DataLoader[tuple[Tensor, Tensor]]


def loaders(hparams: Namespace) -> tuple[Loader, Loader, Loader]:
    """The batches for training, for validation (a tenth of the training digits) and for the test."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (1.0,))])
    digits = mnist(root=hparams.data_root, train=True, transform=transform)
    tng_digits, val_digits = random_split(digits, [0.9, 0.1], generator=torch.Generator().manual_seed(0))
    test_digits = mnist(root=hparams.data_root, train=False, transform=transform)
    return (
        DataLoader(tng_digits, batch_size=hparams.batch_size, shuffle=True),
        DataLoader(val_digits, batch_size=hparams.batch_size),
        DataLoader(test_digits, batch_size=hparams.batch_size),
    )


def train(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], optimizer: optim.Optimizer) -> None:
    model.train()
    for x, y in batches:
        loss = F.cross_entropy(model(x), y, label_smoothing=0.1)

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """The loss, and the share of digits that ``model`` reads right."""
    model.eval()
    answers = [(model(x), y) for x, y in batches]
    logits, labels = (torch.cat(parts) for parts in zip(*answers, strict=True))
    return F.cross_entropy(logits, labels).item(), (logits.argmax(dim=1) == labels).float().mean().item()


def main(hparams: Namespace) -> None:
    if hparams.seed is not None:
        torch.manual_seed(hparams.seed)
    tng_batches, val_batches, test_batches = loaders(hparams)
    model = Model(hparams)
    optimizer = optim.Adam(model.parameters(), lr=hparams.learning_rate)

    best_loss, epochs_without_gain = math.inf, 0
    for epoch in range(hparams.max_nb_epochs):
        train(model, tng_batches, optimizer)
        val_loss, val_acc = evaluate(model, val_batches)
        print(f"epoch {epoch + 1}: val_loss={val_loss:.4f} val_acc={val_acc:.3f}", flush=True)

        if val_loss < best_loss:
            best_loss, epochs_without_gain = val_loss, 0
            torch.save(model.state_dict(), hparams.checkpoint)
        else:
            epochs_without_gain += 1
        if epochs_without_gain == hparams.early_stop_patience:
            break

    model.load_state_dict(torch.load(hparams.checkpoint, weights_only=True))
    print(f"best checkpoint {hparams.checkpoint}")
    _, test_acc = evaluate(model, test_batches)
    print(f"test accuracy   {test_acc:.3f}")


if __name__ == "__main__":
    root_dir = os.path.dirname(os.path.realpath(__file__))

    parser = ArgumentParser(formatter_class=ArgumentDefaultsHelpFormatter)
    parser.add_argument("--drop_prob", default=0.2, type=float, help="share of pixels and of hidden units to zero")
    parser.add_argument("--hidden_dim", default=500, type=int, help="hidden units")
    parser.add_argument("--data_root", default=os.path.join(root_dir, "mnist"), help="folder of the digits")
    parser.add_argument("--learning_rate", default=0.001, type=float, help="of Adam")
    parser.add_argument("--batch_size", default=256, type=int, help="digits in a batch")
    parser.add_argument("--max_nb_epochs", default=50, type=int, help="epochs at most")
    parser.add_argument("--early_stop_patience", default=3, type=int, help="epochs without a gain")
    parser.add_argument("--checkpoint", default=os.path.join(root_dir, "minimal_loop.pt"), help="file of the weights")
    parser.add_argument("--seed", type=int, help="of the weights, the order of the digits and dropout")
    main(parser.parse_args())
