"""Entries behind a short convolution: ``gated-deltanet@conv4``, the control of what it is worth."""
