"""What is known to help with errors of user code."""

import contextlib
import re
import traceback
from collections.abc import Iterator
from types import FrameType

import torch

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
    (
        r"Boolean value of Tensor with more than one value",
        "a loss is made first and called then, nn.CrossEntropyLoss()(logits, y); an if needs one value: (x > 0).any()",
    ),
    (
        r"target with class probabilities",
        "targets of cross_entropy are classes, whole numbers of shape (batch,): y.argmax(1) of one-hot ones",
    ),
    (
        r"expected input\[.*\] to have \d+ channels",
        "images are (batch, channels, height, width) in torch: x.permute(0, 3, 1, 2) where the channels come last",
    ),
    (
        r"stack expects each tensor to be equal size",
        "tensors of several sizes can't be stacked: bring the samples to one size in the dataset, or pass a collate_fn"
        " that pads them to the DataLoader",
    ),
    (r"'(method|builtin_function_or_method)' object is not iterable", "write self.parameters(), with its parentheses"),
    (
        r"as element \d+ in argument 0, but got dict",
        "outputs holds what the step returned for each batch, dicts here: [output['val_loss'] for output in outputs]",
    ),
    (
        r"must be Tensor, not (tuple|list|dict|str)",
        "a layer takes one tensor: unpack the batch, x, y = data_batch, and turn text into numbers in the dataset",
    ),
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
    help_ = help_with_hparams(error) if isinstance(error, AttributeError) else help_with_data(error)
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


def help_with_data(error: BaseException) -> str | None:
    """A line for a step that unpacks a batch of another form, and for an end of which the step returned nothing."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    name, given = argument_of(frames[-1])
    if isinstance(error, ValueError) and "values to unpack" in str(error) and name.endswith("_step"):
        return f"the loader yields {form(given)}"
    for name, given in map(argument_of, frames):
        is_empty = isinstance(given, list) and bool(given) and all(output is None for output in given)
        if name in ("validation_end", "test_end") and is_empty and isinstance(error, TypeError):
            return f"{name.replace('_end', '_step')} returned nothing: return what {name} needs of each batch"
    return None


def argument_of(frame: FrameType) -> tuple[str, object]:
    """The name of the function that ``frame`` runs, and its argument after ``self``."""
    name, names = frame.f_code.co_name, frame.f_code.co_varnames
    return name, frame.f_locals.get(names[1]) if len(names) > 1 else None


def form(batch: object) -> str:
    """What a batch is, in words."""
    if isinstance(batch, torch.Tensor):
        return f"one tensor of shape {(*batch.shape,)}"
    if isinstance(batch, dict):
        return f"dicts with the keys {list(batch)[:8]}"
    return f"{type(batch).__name__}s of {len(batch)}" if isinstance(batch, (tuple, list)) else type(batch).__name__


@contextlib.contextmanager
def helping() -> Iterator[None]:
    """A context in which errors of user code get such a line."""
    try:
        yield
    except Exception as error:
        explain(error)
        raise
