"""Everything that knows MongoDB. See `docs/architecture.md`."""
