"""What Hikyaku relies on of a search server, checked on the embedded one and on Meilisearch.

The expectations are Meilisearch's documentation and its own tests, not what a server here does.
"""
