"""Speech recognition: log-mel frames of spoken phrases to their characters."""
