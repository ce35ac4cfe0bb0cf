"""Image inpainting: hidden patches of a photograph from the visible ones."""
