"""Hybrids: entries made of other entries, a different one in each layer of a stack."""
