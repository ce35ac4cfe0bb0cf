"""What Local Linear Attention costs beside its plain forms and softmax attention."""
