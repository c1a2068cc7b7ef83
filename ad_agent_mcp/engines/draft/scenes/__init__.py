"""Procedural scenes: each module paints one family of backgrounds."""
