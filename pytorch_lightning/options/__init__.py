"""The options of the Trainer: declared once, checked, and given one form each."""
