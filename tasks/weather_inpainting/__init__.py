"""Weather inpainting: hidden blocks of hours and variables from the visible ones."""
