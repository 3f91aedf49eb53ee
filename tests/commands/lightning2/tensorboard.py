"""TensorBoard: scalars by hand."""
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).pow(2).mean()
        if batch_idx % 2 == 0:
            self.logger.experiment.add_scalar("loss/by_hand", loss, self.global_step)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


torch.manual_seed(21)
model = Model()
trainer = Trainer(
    max_epochs=2,
    logger=TensorBoardLogger("tb_logs", name="my_model"),
    enable_progress_bar=False,
    enable_checkpointing=False,
)
trainer.fit(model, DataLoader(torch.randn(12, 2), batch_size=4))
