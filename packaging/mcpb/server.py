"""What the host starts with uv: the MCP server of this bundle, over stdio."""

from ad_agent_mcp.__main__ import main

if __name__ == "__main__":
    main()
