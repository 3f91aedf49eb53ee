"""What a fit is and what is seen of it: progress, metrics, rows, hooks, files, and what was asked of it."""
