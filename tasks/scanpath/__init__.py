"""Scanpath: where the eyes go next in a search among objects (synthetic)."""
