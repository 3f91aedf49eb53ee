"""For tests of one's own: does this model still train as it did?

``same_training`` trains a model for a few batches and compares every number on the way with a small file. In a
``conftest.py``, ``from pytorch_lightning.testing import pytest_addoption, pytest_configure`` adds the option
``--update`` to pytest, which writes these files anew.
"""

from pytorch_lightning.testing.same_training import pytest_addoption, pytest_configure, same_training

__all__ = ["pytest_addoption", "pytest_configure", "same_training"]
