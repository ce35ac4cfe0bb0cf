"""Super-resolution: a picture from a much smaller version of it."""
