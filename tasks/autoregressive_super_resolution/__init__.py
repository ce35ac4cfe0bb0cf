"""Super-resolution pixel by pixel: a coarse colour picture to grey pixels as tokens."""
