"""A small search server that answers the part of Meilisearch's REST API that Hikyaku uses.

It is for `make up`, where no Meilisearch runs. See `docs/embedded-search.md`.
"""
