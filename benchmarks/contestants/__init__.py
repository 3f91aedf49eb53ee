"""One file a contestant: a function per workload, which is given the number of batches. What isn't there isn't
measured."""
