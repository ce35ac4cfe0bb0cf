"""Mechanisms that are right almost everywhere, each wrong where a small check would not look.

Every class names in ``CAUGHT`` the rule that must refuse it, and in ``PATTERNS`` where; the good
ones they are made from must pass.
"""
