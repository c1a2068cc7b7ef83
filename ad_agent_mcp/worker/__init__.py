"""The child process that makes the pictures."""
