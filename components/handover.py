"""Have a fork server run this program, if one runs above it: components/fork_server.py."""

import json
import os
import signal
import socket
import struct
import sys

ADDRESS = "PEMT_FORK_SERVER"  # in the environment of programs below a server: the path of its socket
PASSED_ON = (signal.SIGINT, signal.SIGTERM)
LENGTH = struct.Struct("!I")  # of a request, before it; and of the answer, the exit code


def hand_over(module: str) -> None:
    """Have the server run this program, and exit as it does; return if no server runs."""
    address = os.environ.get(ADDRESS)
    if address is None:
        return
    ignored = [each.name for each in PASSED_ON if signal.getsignal(each) is signal.SIG_IGN]
    request = {"module": module, "arguments": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ),
               "ignored": ignored}  # fmt: skip
    content = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            socket.send_fds(connection, [LENGTH.pack(len(content))], [0, 1, 2])
        except OSError:  # it has ended, or a file is closed
            return
        connection.sendall(content)
        for number in PASSED_ON:
            if number.name not in ignored:
                signal.signal(number, lambda received, _: connection.sendall(bytes([received])))
        answer = connection.recv(LENGTH.size, socket.MSG_WAITALL)
    sys.exit(LENGTH.unpack(answer)[0] if answer else f"error: {module}: the fork server ended")
