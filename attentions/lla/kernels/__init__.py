"""Triton kernels of Local Linear Attention; import the submodules, which need Triton."""
