"""Measurements of the running product, against the bars that it has to keep."""
