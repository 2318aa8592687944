"""Rows of input from a file, standard input or pairs: read one at a time, and converted to fit a signature."""
