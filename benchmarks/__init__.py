"""What training costs, side by side: ``python -m benchmarks --help``."""
