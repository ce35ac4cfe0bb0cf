"""What code a number depends on, found from source, definition by definition.

`canonical` writes a piece of syntax without what changes nothing (comments, docstrings, messages,
annotations) and with its free names as references, by what `scopes` says of them; `modules` cuts a
file into definitions; `sources` finds the file of a module without importing it, `names` what a
name leads to; `closure` follows references from some roots and digests what it reaches.
"""
