"""State tracking: how far a mechanism follows a state that every token changes."""
