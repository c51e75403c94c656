"""Edge nodes: WebSockets in, the bus out. See `docs/architecture.md`."""
