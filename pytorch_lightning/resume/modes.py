"""Which parameters are trained, and which layers are in train mode."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from pytorch_lightning.errors import Notices


class ModesPart:
    """``requires_grad`` of every parameter and the train or eval mode of every submodule, as the fit found them and as
    they are."""

    def __init__(self, module: nn.Module, notices: Notices) -> None:
        self._module, self._notices = module, notices
        if not module.training:
            notices.say(
                "train-mode",
                f"{type(module).__name__} was in eval mode (after a test or an eval(), say), and is put in train mode,"
                " with all its layers. To keep some in eval mode call train() and then their eval() before fit",
            )
            module.train()
        self._first = self._found()
        self._saved: Mapping[str, Any] | None = None

    def _found(self) -> dict[str, list[str]]:
        return {
            "frozen": [name for name, p in self._module.named_parameters() if not p.requires_grad],
            "eval": [name for name, submodule in self._module.named_modules() if not submodule.training],
        }

    def state_dict(self) -> dict[str, Any]:
        """The names of what the fit found frozen or in eval mode, and of what is so now."""
        return {"first": self._first, "now": self._found()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put ``requires_grad`` and modes back at ``restore``."""
        self._saved = {"first": state["first"], "now": state["now"]}

    def restore(self) -> None:
        """Put back what ``load_state_dict`` was given, where the program doesn't say otherwise than before. Hooks that
        run at each start may have changed it since."""
        if self._saved is None:
            return
        first, now, left = self._saved["first"], self._saved["now"], []
        for name, parameter in self._module.named_parameters():
            if (name in first["frozen"]) == (name in self._first["frozen"]):
                parameter.requires_grad_(name not in now["frozen"])
            else:
                left.append(f"requires_grad of {name}")
        for name, submodule in self._module.named_modules():
            if (name in first["eval"]) == (name in self._first["eval"]):
                submodule.training = name not in now["eval"]
            else:
                left.append(f"the mode of {name or 'the module'}")
        if left:
            shown = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
            self._notices.say(
                "other-modes", f"other than at the first start, and left as the program makes it: {shown}"
            )
