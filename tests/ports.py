"""What tests with servers share: a port for one, and how long a good one may take."""

import random
import socket
from contextlib import suppress

PATIENT = (30, 30)  # seconds to be reached and to answer: on a busy machine 3 may be too few


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has. It is below those that the system gives to connections, so it stays free."""
    for port in random.Random().sample(range(20_000, 32_000), 1_000):
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port from 20000 to 32000 is free")
