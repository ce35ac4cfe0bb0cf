"""Witnesses: what a training run shows within seconds, so that it can be recognised.

A key may change though no number would: a function was split, a helper renamed. The witness of a
cell - its first losses, its initial weights, its data, its recipe, the metrics of the untrained
model, and a training run of full length in miniature - is recorded beside its scores. Where a
replay under today's code gives the same witness, the scores are carried over to the new key.
"""
