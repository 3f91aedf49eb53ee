"""Batches: their order as a function of seed and position, loaders that can be replayed, copies to a device."""
