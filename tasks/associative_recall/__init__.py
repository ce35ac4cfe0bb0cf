"""Associative recall: how many key-value pairs a mechanism holds apart."""
