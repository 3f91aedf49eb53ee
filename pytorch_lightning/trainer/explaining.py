"""What is known to help with errors of user code."""

from pytorch_lightning.lightning2 import advice
from pytorch_lightning.root_module.root_module import LightningModule


def explain(error: Exception) -> None:
    """Add to an ``AttributeError`` of user code what to write, if Lightning 2's modules have that attribute."""
    if isinstance(error, AttributeError) and isinstance(error.obj, LightningModule) and error.args:
        text = advice("module_members", str(error.name))
        if text is not None and text not in str(error):
            error.args = (f"{error.args[0]}. {text}.",)
