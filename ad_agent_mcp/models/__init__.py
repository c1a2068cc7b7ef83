"""What models there are, what is here of them, what fits into memory, and the engine that follows. No torch."""
