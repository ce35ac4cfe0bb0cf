"""Summarisation: a short text from a long source, by an encoder-decoder."""
