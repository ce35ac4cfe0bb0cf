"""Local Linear Attention: see `attentions.lla.attention`."""
