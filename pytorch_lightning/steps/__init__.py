"""What happens to a window of batches: forward, backward, gradients, the optimizers' step."""
