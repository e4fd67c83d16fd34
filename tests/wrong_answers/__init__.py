"""Typical wrong answers to the exercises, one file for each notebook, with a part of the hint that they get."""
