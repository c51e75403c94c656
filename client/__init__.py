"""The Python client and the terminal client. See `docs/protocol.md`."""
