"""The engine that paints with FLUX.1, SDXL, a ControlNet and BiRefNet on a GPU."""
