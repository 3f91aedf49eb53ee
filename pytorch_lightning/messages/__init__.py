"""What processes of a run tell each other, beside gradients: plain data, as bytes that can't name code to run."""
