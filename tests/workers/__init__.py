"""One tiny worker per way to die. Each is started as `python -m tests.workers.NAME`."""
