# Caddy as Debian has it.
FROM hikyaku-server:offline
COPY caddy /usr/bin/caddy
USER 10001:10001
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
