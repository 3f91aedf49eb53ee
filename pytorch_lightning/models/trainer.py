from pytorch_lightning.trainer.trainer import Trainer as Trainer
