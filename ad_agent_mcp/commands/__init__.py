"""What a person types: the command line, our own MCP client, the doctor, models. On top of both columns."""
