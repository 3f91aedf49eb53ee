"""One command that runs on a GPU what was written for one, and reports: ``scripts/gpu_check --help``."""
