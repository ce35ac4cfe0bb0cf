"""Straightforward transcriptions of the published formulas, as a reader of the paper would write them."""
