"""THE CONDUCTOR: import a model, partition it, tune its tasks within a budget, stitch the kernels."""
