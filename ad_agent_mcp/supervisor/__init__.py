"""Having a worker at all times: one process, its pipe and its end. Knows nothing of jobs' states. Called by `jobs`."""
