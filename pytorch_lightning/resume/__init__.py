"""What makes a fit resumable: the parts of its state, when they are saved, and how they are restored."""
