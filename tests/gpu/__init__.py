"""What was written for a GPU: run there by ``scripts/gpu_check``, and elsewhere on a stand-in."""
