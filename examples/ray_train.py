"""The template's model, trained by a Ray job: Ray places the processes and starts them anew, the Trainer trains.

Needs ``pip install "ray[train]"`` (the extra ``ray`` of this library). On a cluster pass ``--save_path`` on a file
system that all machines share: a run that was killed resumes from its newest save. Options of the model may be added.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from pytorch_lightning import Trainer

TEMPLATES = str(Path(__file__).resolve().parent / "new_project_templates")


def train(config: dict[str, Any]) -> None:
    """What each of Ray's workers runs; the Trainer joins the processes that Ray started."""
    sys.path.insert(0, config["templates"])
    from lightning_module_template import LightningTemplateModel

    parser = LightningTemplateModel.add_model_specific_args(
        argparse.ArgumentParser(add_help=False), config["save_path"]
    )
    hparams = parser.parse_args(config["model"])
    trainer = Trainer(
        gpus=-1 if config["use_gpu"] else None,
        default_save_path=config["save_path"],
        max_nb_epochs=config["max_nb_epochs"],
        resume="auto",
        progress_bar=False,
    )
    trainer.fit(LightningTemplateModel(hparams))
    metrics = trainer.validate()
    if trainer.proc_rank == 0:
        print("validated", metrics)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nb_workers", type=int, default=2, help="processes, each with a batch of its own")
    parser.add_argument("--use_gpu", action="store_true", help="a GPU for each")
    parser.add_argument("--max_nb_epochs", type=int, default=2)
    parser.add_argument("--save_path", default=str(Path.cwd() / "ray_logs"))
    given, model = parser.parse_known_args()
    options = vars(given)
    trainer = TorchTrainer(
        train,
        train_loop_config={**options, "templates": TEMPLATES, "model": model},
        scaling_config=ScalingConfig(num_workers=options["nb_workers"], use_gpu=options["use_gpu"]),
        torch_config=TorchConfig(backend="nccl" if options["use_gpu"] else "gloo"),
        run_config=RunConfig(storage_path=options["save_path"], failure_config=FailureConfig(max_failures=3)),
    )
    trainer.fit()


if __name__ == "__main__":
    main()
