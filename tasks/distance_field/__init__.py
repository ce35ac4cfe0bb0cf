"""Distance field: how far places in space are from a surface of which few points are known."""
