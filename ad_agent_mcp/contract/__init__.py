"""What the server and the worker agree on: pydantic and the standard library, nothing of ours."""
