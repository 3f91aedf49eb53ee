"""freeze and unfreeze, save_checkpoint, and load_from_checkpoint with other arguments and with strict=False."""
import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Backbone(L.LightningModule):
    def __init__(self, width=6, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Sequential(nn.Linear(4, width), nn.Tanh())
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        return self.head(self.body(x))

    def training_step(self, batch, batch_idx):
        x, _ = batch
        return nn.functional.mse_loss(self(x), x)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


class FineTuned(L.LightningModule):
    def __init__(self, path, classes=3):
        super().__init__()
        self.backbone = Backbone.load_from_checkpoint(path, lr=0.01, map_location="cpu")
        self.backbone.freeze()
        self.classifier = nn.Linear(self.backbone.hparams.width, classes)

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            self.backbone.unfreeze()

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.classifier(self.backbone.body(x)), y)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD([{"params": self.classifier.parameters()},
                                {"params": self.backbone.body.parameters(), "lr": self.backbone.hparams.lr}], lr=0.1)


L.seed_everything(49)
x = torch.randn(40, 4)
loader = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=10)
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
first = L.Trainer(max_epochs=2, **quiet)
first.fit(Backbone(width=5), loader)
first.save_checkpoint("backbone.ckpt")
torch.manual_seed(1)
model = FineTuned("backbone.ckpt")
L.Trainer(max_epochs=3, **quiet).fit(model, loader)
numbers = {"lr": model.backbone.hparams.lr, "width": model.backbone.hparams["width"]}
