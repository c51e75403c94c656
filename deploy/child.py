"""Becomes a command that dies with its parent: `child.py PARENT_PID COMMAND ARGUMENT...`.

The kernel kills the command when the parent ends in any way, kill -9 included. Run as a file, with
nothing imported but the standard library, so that it costs some milliseconds only.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> int:
    """Set the parent-death signal, then become the command."""
    parent, command = int(argv[1]), argv[2:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            print(f"prctl: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
            return 126
    if os.getppid() != parent:  # it ended before the signal was set
        return 125
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv))
