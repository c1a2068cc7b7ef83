"""The HTTP server: transports, who may talk, plain routes, the page, metrics.

Knows what clients are told (`mcp_api`), not how jobs are kept. Called by `commands`.
"""
