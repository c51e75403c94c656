"""Workers: each reads the log or answers questions. See `docs/architecture.md`."""
