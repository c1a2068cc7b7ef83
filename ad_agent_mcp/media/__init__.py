"""Pictures and fonts with Pillow alone, for both columns: decoding what strangers send, fonts, previews. No arrays."""
