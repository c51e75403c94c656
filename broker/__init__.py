"""Everything that knows NATS. See `docs/architecture.md`."""
