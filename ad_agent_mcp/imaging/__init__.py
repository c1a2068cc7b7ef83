"""Pure functions on arrays and pictures: no models, no jobs, no processes."""
