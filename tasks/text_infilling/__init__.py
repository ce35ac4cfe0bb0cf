"""Text infilling: hidden characters of a text from the visible ones, by queries at their places."""
