"""Passkey retrieval: a needle in filler, over length and depth."""
