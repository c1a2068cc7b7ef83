"""The engine without models: scenes and lettering drawn on the CPU."""
