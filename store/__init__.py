"""Everything that knows MongoDB and the object store. See `docs/architecture.md`."""
