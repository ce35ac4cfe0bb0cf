"""Text to speech: log-mel spectrograms from characters, by the published backbones."""
