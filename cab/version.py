"""The suite version: part of every cell key, so releases never share numbers."""

SUITE_VERSION = "0.1.0"
