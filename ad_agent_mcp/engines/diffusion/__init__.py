"""The engine with models: FLUX, SDXL and BiRefNet, on a GPU or on the CPU."""
