# NATS as its wheel has it, on Debian.
FROM hikyaku-server:offline
COPY nats-server /usr/local/bin/nats-server
USER 10001:10001
CMD ["nats-server"]
