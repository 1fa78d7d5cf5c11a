"""Pure functions of tensors: the maths behind the layers, in PyTorch and by the compiled kernels."""
