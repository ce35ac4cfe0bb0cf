"""Training-free modifications of the softmax map, tried on models trained without them."""
