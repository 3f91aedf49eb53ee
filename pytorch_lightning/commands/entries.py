"""Commands that are at home elsewhere in the package, which is imported when one of them is called."""

from collections.abc import Sequence


def replay(words: Sequence[str]) -> int:
    """``python -m pytorch_lightning replay``: the same as ``python -m pytorch_lightning.replay``."""
    from pytorch_lightning.replay import main

    return main([*words], "python -m pytorch_lightning replay")


def samples(words: Sequence[str]) -> int:
    """``python -m pytorch_lightning samples``: which samples a batch of a run had."""
    from pytorch_lightning.samples import main

    return main([*words])


def fork(words: Sequence[str]) -> int:
    """``python -m pytorch_lightning fork``: a run from a batch of another on."""
    from pytorch_lightning.forks.command import main

    return main([*words])


def verify(words: Sequence[str]) -> int:
    """``python -m pytorch_lightning verify``: whether a run's saves follow from its code and data."""
    from pytorch_lightning.verify import main

    return main([*words])


def consolidate(words: Sequence[str]) -> int:
    """``python -m pytorch_lightning consolidate``: that of ``python -m pytorch_lightning.checkpoints``."""
    from pytorch_lightning.checkpoints.__main__ import main

    return main(["consolidate", *words], "python -m pytorch_lightning")
