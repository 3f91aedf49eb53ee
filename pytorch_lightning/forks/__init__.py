"""Forks of a run: ``python -m pytorch_lightning fork``."""
