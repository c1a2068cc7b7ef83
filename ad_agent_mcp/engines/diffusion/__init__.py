"""The engine of large models: everything here may import torch, and nothing outside does."""
