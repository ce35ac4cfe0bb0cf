"""Coordinates of points on a shape, one after the other."""
