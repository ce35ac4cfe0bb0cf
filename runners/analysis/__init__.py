"""Cheap analyses of trained models: what a slot attends to, and how much it can be disturbed."""
