"""From rows to a leaderboard: what is known, how well, and what is not."""
