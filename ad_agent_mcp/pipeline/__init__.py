"""The three steps: knows stages and engines, not processes."""
