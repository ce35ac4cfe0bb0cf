"""Reading lines of handwritten digits: a picture to the string of its digits."""
