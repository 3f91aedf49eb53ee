"""A search over learning rates through test-tube's SlurmCluster, as programs of 2019 do it."""

import os
import sys
from typing import Any

from test_tube import HyperOptArgumentParser, SlurmCluster

from tests.launchers import program
from tests.slurm import job


class Model(program.Model):
    rate = 0.01

    def configure_optimizers(self) -> Any:
        (optimizer,) = super().configure_optimizers()
        optimizer.param_groups[0]["lr"] = self.rate
        return [optimizer]


def train(hparams: Any, cluster: Any) -> None:
    """One trial, which is warned once."""
    folder = os.path.join(hparams.folder, str(hparams.rate))
    os.makedirs(folder, exist_ok=True)
    Model.rate = hparams.rate
    program.Model = Model  # type: ignore[misc]
    job.main(folder, {"cluster": cluster, "send": ["step", 5, "job", ["SIGUSR1"]]})


if __name__ == "__main__":
    parser = HyperOptArgumentParser(strategy="grid_search")
    parser.add_argument("--folder")
    parser.opt_list("--rate", default=0.01, type=float, options=[0.01, 0.02], tunable=True)
    hparams = parser.parse_args()
    cluster = SlurmCluster(
        hyperparam_optimizer=hparams, log_path=os.path.join(hparams.folder, "logs"), python_cmd=sys.executable
    )
    cluster.job_time = "10:00"
    cluster.memory_mb_per_node = 500
    cluster.minutes_to_checkpoint_before_walltime = 1
    cluster.optimize_parallel_cluster_cpu(train, nb_trials=2, job_name="search", enable_auto_resubmit=True)
