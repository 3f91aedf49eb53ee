"""What is known to help with errors of user code."""

import contextlib
import re
import traceback
from collections.abc import Iterator

from pytorch_lightning.errors import LightningError
from pytorch_lightning.lightning2 import advice
from pytorch_lightning.root_module.root_module import LightningModule

HELP = (
    (
        r"Target \S+ is out of bounds",
        "targets of cross_entropy are classes from 0 to C-1, where the model gives C numbers for each sample",
    ),
    (
        r"modified by an inplace operation",
        "something that the loss was computed from was changed in place: write x = x + 1 instead of x += 1;"
        " torch.autograd.set_detect_anomaly(True) shows where",
    ),
    (
        r"leaf Variable that requires grad is being used in an in-place",
        "a weight is changed in place: do that under torch.no_grad(), in on_batch_end, say",
    ),
    (
        r"backward through the graph a second time",
        "the graph is freed by the first backward(): the trainer calls it, so don't call it yourself, and detach()"
        " what is kept from an earlier batch",
    ),
    (
        r"shapes cannot be multiplied|size mismatch, m1",
        "the size of the input's last dimension must be the layer's first number",
    ),
    (
        r"on the same device|not on the expected device|unexpected device|device type .* tensor but",
        "batches are moved for you: make other tensors with device=self.device, or keep them as buffers"
        " (self.register_buffer)",
    ),
    (
        r"more than 1 value per channel when training",
        "batch normalization needs two samples or more: pass drop_last=True to the DataLoader, or a larger batch_size",
    ),
    (
        r"could not infer output dtype|must be either a floating",
        "whole numbers and booleans have no mean: write .float() first",
    ),
    (
        r"expected (scalar type|target dtype)|have the same dtype|not implemented for '|Found dtype|should be the same",
        "the dtypes don't fit: inputs of layers are float32 (x.float()), targets of cross_entropy whole numbers"
        " (y.long()), those of mse_loss floats (y.float())",
    ),
    (
        r"optimizer got an empty parameter list",
        "the module has no parameters: assign layers in __init__, after super().__init__(); several as nn.ModuleList",
    ),
    (r"'Namespace' object is not subscriptable", "hparams are a Namespace: read hparams.name"),
)
"""Words of torch's and Python's own errors, and the line that helps."""

ATTRIBUTE = re.compile(r"\bhparams\.(\w+)")


def explain(error: BaseException) -> None:
    """Add to an error of user code one line that says what to write, where the cause is known."""
    if isinstance(error, LightningError) or any(note.startswith("help: ") for note in getattr(error, "__notes__", ())):
        return
    if isinstance(error, AttributeError) and isinstance(error.obj, LightningModule) and error.args:
        text = advice("module_members", str(error.name))
        if text is not None and text not in str(error):
            error.args = (f"{error.args[0]}. {text}.",)
        return
    help_ = help_with_hparams(error) if isinstance(error, AttributeError) else None
    help_ = help_ or next((line for words, line in HELP if re.search(words, str(error))), None)
    if help_ is not None:
        error.add_note(f"help: {help_}")


def help_with_hparams(error: AttributeError) -> str | None:
    """A line for ``self.hparams.name`` where hparams have no such name, or aren't there."""
    frames = traceback.extract_tb(error.__traceback__)
    found = ATTRIBUTE.search((frames[-1].line or "") if frames else "")
    if found is None or found[1] != error.name:
        return None
    if error.obj is None:
        made = f"self.hparams = Namespace({found[1]}=...)"
        return f"hparams are None: pass them, super().__init__(hparams), or assign {made}"
    if isinstance(error.obj, dict):
        return f"hparams are a dict: read self.hparams[{found[1]!r}], or pass a Namespace"
    return f"hparams have {', '.join(vars(error.obj)) or 'nothing'}" if hasattr(error.obj, "__dict__") else None


@contextlib.contextmanager
def helping() -> Iterator[None]:
    """A context in which errors of user code get such a line."""
    try:
        yield
    except Exception as error:
        explain(error)
        raise
