"""Frames of speech, one after the other."""
