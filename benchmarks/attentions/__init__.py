"""Each mechanism beside the straightforward form of its formula, and how its cost grows."""
