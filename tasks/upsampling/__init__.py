"""Upsampling: the colour at continuous positions from a picture of a few pixels."""
