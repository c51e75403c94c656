"""Load generator and measurements. See `docs/bench.md`."""
