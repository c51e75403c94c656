"""The worker `files`: takes files in, keeps them, gives them out. See `docs/files.md`."""
