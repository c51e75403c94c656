"""Asks a process of this machine whether it is well: `python -m deploy.health PORT PATH`.

For health checks of containers, which run every few seconds for each of them: nothing is imported
that takes long. Ends with 0 if the answer is 200, else with 1 and what was answered.
"""

import socket
import sys

TIMEOUT_S = 4.0
MAX_BYTES = 4096


def main(argv: list[str]) -> int:
    """Ask once; `argv` is the port and the path."""
    port, path = int(argv[0]), argv[1]
    try:
        answer = ask(port, path)
    except OSError as error:
        print(f"port {port} does not answer: {error}", file=sys.stderr)
        return 1
    status, _, rest = answer.partition(b"\r\n")
    if status.split()[1:2] == [b"200"]:
        return 0
    said = rest.partition(b"\r\n\r\n")[2]
    print(f"{path}: {(status + b' ' + said).decode(errors='replace')}", file=sys.stderr)
    return 1


def ask(port: int, path: str) -> bytes:
    """The beginning of the answer. Raises `OSError`."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.sendall(request.encode())
        answer = b""
        while len(answer) < MAX_BYTES:
            received = connection.recv(MAX_BYTES)
            if not received:
                break
            answer += received
    return answer


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
