"""Irregular series: values at requested times from observations at irregular ones."""
