"""The Trainer: it plans a fit from options and module, then runs the loop."""
