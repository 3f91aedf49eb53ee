"""A program of two fits: one inside the other's validation, or one after the other."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from tests.launchers.nets import Net, trainer


class Inner(Net):
    """Sends the signal in its fourth step, if one is given."""

    sends = ""

    def training_step(self, data_batch: Any, batch_nb: int) -> Any:
        if Inner.sends and self.global_step == 3:
            number, Inner.sends = getattr(signal, Inner.sends), ""
            os.kill(os.getpid(), number)
        return super().training_step(data_batch, batch_nb)


class Outer(Net):
    """Each validation fits another model."""

    def validation_end(self, outputs: Any) -> Any:
        inner = Inner()
        one = trainer("inner", experiment=False, max_nb_epochs=2)
        one.fit(inner)
        return {**super().validation_end(outputs), "inner": inner.layer.weight.sum()}


def main(folder: str, how: str, send: str = "") -> None:
    """Ends with 3 where a fit was interrupted by Ctrl-C."""
    os.chdir(folder)
    torch.set_num_threads(1)
    Inner.sends = send
    first, second = (Outer(), None) if how == "inside" else (Net(), Inner())
    end: list[Any] = []
    for name, model in (("first", first), ("second", second)):
        if model is not None:
            one = trainer(name, resume="auto", save_every_nb_batches=2, max_nb_epochs=3)
            if not one.fit(model):
                sys.exit(3)
            end.append([one.global_step, [value.tolist() for value in model.state_dict().values()], one.tqdm_metrics])
    Path("end.json").write_text(json.dumps(end, default=float))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
