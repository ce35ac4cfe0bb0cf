"""In-context regression: what a trained stack of attention learns to do with pairs in context."""
