"""The engine with models: FLUX, SDXL with a ControlNet, BiRefNet."""
