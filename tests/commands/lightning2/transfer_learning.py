"""A frozen backbone, which is trained too from the second epoch on."""
import lightning as L
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset


class ImagenetTransferLearning(L.LightningModule):
    def __init__(self):
        super().__init__()
        # init a pretrained backbone
        layers = [nn.Linear(8, 8), nn.ReLU()]
        self.feature_extractor = nn.Sequential(*layers)
        self.feature_extractor.eval()
        for param in self.feature_extractor.parameters():
            param.requires_grad = False

        # use the pretrained model to classify
        self.classifier = nn.Linear(8, 3)

    def forward(self, x):
        representations = self.feature_extractor(x).flatten(1)
        return self.classifier(representations)

    def on_train_epoch_start(self):
        if self.current_epoch == 1:
            for param in self.feature_extractor.parameters():
                param.requires_grad = True

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


L.seed_everything(16)
x = torch.randn(30, 8)
model = ImagenetTransferLearning()
trainer = L.Trainer(max_epochs=3, logger=False, enable_progress_bar=False, enable_checkpointing=False)
trainer.fit(model, DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=10))
