"""How a round starts: pure functions of state dicts, one family a file. See `docs/` for adding one in eight steps."""
