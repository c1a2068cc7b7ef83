"""The parent process: talks MCP, owns the jobs, never loads an array or model library."""
