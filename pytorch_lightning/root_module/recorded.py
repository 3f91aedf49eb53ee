"""What a module notes of how it was made, before any code of a user's runs."""

from typing import Any, Self

from torch import nn

from pytorch_lightning.root_module.elsewhere import BeforeInit


class Recorded:
    """Notes the call of the outermost ``__init__``, without any code of a user's."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        from pytorch_lightning.root_module.arguments import record

        new: Any = super().__new__
        module = new(cls) if new is object.__new__ else new(cls, *args, **kwargs)
        passes_nothing = cls.__new__ is not Recorded.__new__ and not args and not kwargs  # a user's own may do that
        if isinstance(module, nn.Module):
            before = BeforeInit(cls.__name__)
            parts = dict.fromkeys(("_parameters", "_buffers", "_modules"), before)
            vars(module).update(parts, _non_persistent_buffers_set=set())
        vars(module)["_init_arguments"] = None if passes_nothing else record(cls, args, kwargs)
        return module
