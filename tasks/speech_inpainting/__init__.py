"""Speech inpainting: hidden frames of a log-mel spectrogram, in gaps, from the visible ones."""
