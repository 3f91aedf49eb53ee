"""``LightningModule``: what a user subclasses."""
