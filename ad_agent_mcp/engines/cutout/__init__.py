"""Cutting products out with networks."""
