"""Point cloud completion: the whole shape from the points of the part that was seen."""
