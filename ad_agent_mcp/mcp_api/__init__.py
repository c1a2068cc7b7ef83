"""The MCP surface: tools, resources, prompts, what clients are told, and the stdio transport.

Knows jobs through `JobService`, not workers. Called by `http_api` and `commands`.
"""
