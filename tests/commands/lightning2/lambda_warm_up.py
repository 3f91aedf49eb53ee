"""Parameter groups without weight decay, and a warm-up by LambdaLR for each step, from the number of all steps."""
import math

import lightning as L
import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset


class TextClassifier(L.LightningModule):
    def __init__(self, vocab=20, warmup_ratio=0.1, learning_rate=1e-2, weight_decay=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.embed = torch.nn.Embedding(vocab, 8)
        self.norm = torch.nn.LayerNorm(8)
        self.head = torch.nn.Linear(8, 2)
        self.validation_step_outputs = []

    def forward(self, ids):
        return self.head(self.norm(self.embed(ids).mean(1)))

    def training_step(self, batch, batch_idx):
        ids, labels = batch
        loss = torch.nn.functional.cross_entropy(self(ids), labels)
        self.log("train_loss", loss)
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"], prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        ids, labels = batch
        logits = self(ids)
        self.validation_step_outputs.append({"preds": logits.argmax(1), "labels": labels,
                                             "loss": torch.nn.functional.cross_entropy(logits, labels)})

    def on_validation_epoch_end(self):
        outputs = self.validation_step_outputs
        preds = torch.cat([o["preds"] for o in outputs])
        labels = torch.cat([o["labels"] for o in outputs])
        self.log("val_loss", torch.stack([o["loss"] for o in outputs]).mean(), prog_bar=True)
        self.log("val_acc", (preds == labels).float().mean(), prog_bar=True)
        self.validation_step_outputs.clear()

    def configure_optimizers(self):
        no_decay = ["bias", "norm.weight"]
        groups = [
            {"params": [p for n, p in self.named_parameters() if not any(nd in n for nd in no_decay)],
             "weight_decay": self.hparams.weight_decay},
            {"params": [p for n, p in self.named_parameters() if any(nd in n for nd in no_decay)], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.hparams.learning_rate)
        total = self.trainer.estimated_stepping_batches
        warm_up = int(total * self.hparams.warmup_ratio)

        def lr_lambda(step):
            if step < warm_up:
                return step / max(1, warm_up)
            return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))

        scheduler = LambdaLR(optimizer, lr_lambda)
        return [optimizer], [{"scheduler": scheduler, "interval": "step", "frequency": 1}]


if __name__ == "__main__":
    L.seed_everything(48)
    ids = torch.randint(0, 20, (64, 5))
    labels = (ids.sum(1) > 50).long()
    train, val = TensorDataset(ids[:48], labels[:48]), TensorDataset(ids[48:], labels[48:])
    model = TextClassifier(warmup_ratio=0.2)
    trainer = L.Trainer(max_epochs=4, accumulate_grad_batches=2, gradient_clip_val=1.0, logger=False,
                        enable_checkpointing=False, enable_model_summary=False)
    trainer.fit(model, train_dataloaders=DataLoader(train, batch_size=8), val_dataloaders=DataLoader(val, batch_size=8))
    numbers = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("val")}
