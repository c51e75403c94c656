# MongoDB as its wheel has it, on Debian.
FROM hikyaku-server:offline
COPY mongod /usr/local/bin/mongod
USER 10001:10001
CMD ["mongod"]
