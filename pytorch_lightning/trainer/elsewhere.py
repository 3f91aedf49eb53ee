"""What a trainer has in Lightning 2 and not here: reading it says what to read instead."""

from typing import TYPE_CHECKING, Any

from pytorch_lightning.lightning2 import advice
from pytorch_lightning.root_module.root_module import LightningModule


class LightningAttributes:
    """Answers for attributes that aren't there."""

    if not TYPE_CHECKING:  # a type checker would take every name for one that is there

        def __getattr__(self, name: str) -> Any:
            text = advice("trainer_members", name)
            raise AttributeError(
                f"Trainer has no attribute {name!r}" + (f". {text}." if text else ""), name=name, obj=self
            )


def explain(error: Exception) -> None:
    """Add to an ``AttributeError`` of user code what to write, if Lightning 2's modules have that attribute."""
    if isinstance(error, AttributeError) and isinstance(error.obj, LightningModule) and error.args:
        text = advice("module_members", str(error.name))
        if text is not None and text not in str(error):
            error.args = (f"{error.args[0]}. {text}.",)
