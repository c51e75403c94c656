"""Search over messages: what speaks to Meilisearch, and a small server that stands in for it."""
