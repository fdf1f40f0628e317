"""Have a fork server run this program, if one runs above it: components/fork_server.py."""

import json
import os
import signal
import socket
import struct
import sys

ADDRESS = "PEMT_FORK_SERVER"  # in the environment of programs below a server: the path of its socket
LENGTH = struct.Struct("!I")  # of a request, before it; and of the answer, the exit code


def hand_over(module: str) -> None:
    """Have the server run this program, and exit as it does; return if no server runs."""
    address = os.environ.get(ADDRESS)
    if address is None:
        return
    request = {"module": module, "arguments": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ)}
    content = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
        except OSError:  # it has ended
            return
        socket.send_fds(connection, [LENGTH.pack(len(content))], [0, 1, 2])
        connection.sendall(content)
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda received, _: connection.sendall(bytes([received])))
        answer = connection.recv(LENGTH.size, socket.MSG_WAITALL)
    sys.exit(LENGTH.unpack(answer)[0] if answer else f"error: {module}: the fork server ended")
