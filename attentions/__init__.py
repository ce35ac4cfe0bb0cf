"""The registered mechanisms, one file each; `attentions.shared` holds what several are made of."""
