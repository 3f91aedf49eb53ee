"""The page of ``python -m pytorch_lightning report``: what is read of the runs, what is drawn, and the HTML."""
