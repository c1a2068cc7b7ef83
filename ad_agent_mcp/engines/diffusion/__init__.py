"""The diffusion engine: FLUX, SDXL with ControlNet, and BiRefNet on one GPU."""
