"""Cost at sizes of one's own: what ``cab bench`` and `cab.bench` share."""
