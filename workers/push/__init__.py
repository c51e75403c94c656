"""Pushes to devices that are not connected: providers, and what they share."""
