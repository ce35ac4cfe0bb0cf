"""Straightforward transcriptions of the published formulas, as a reader of a paper writes them."""
