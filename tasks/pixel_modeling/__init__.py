"""Pixels of a photograph, one after the other."""
