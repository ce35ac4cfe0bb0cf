"""Artifacts that tasks make: charts, pictures, sounds and texts."""
