"""Composition: settings, the command line, and the local stack. See `docs/operations.md`."""
