# In Meilisearch's place: Hikyaku's own search server, which answers the part of its API that is used.
FROM hikyaku:offline
COPY meilisearch /usr/local/bin/meilisearch
ENTRYPOINT []
CMD ["meilisearch"]
