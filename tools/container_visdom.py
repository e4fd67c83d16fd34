"""For compose.yaml: our visdom server, and a way to it from outside the container.

The server listens on 127.0.0.1 only and answers browsers that ask for localhost only. A container's published port
arrives at another address: what comes in there is passed on to the server, byte for byte.
"""

import asyncio
import os
import signal
import subprocess
import sys

INSIDE = int(os.environ.get("VISDOM_PORT") or 8097)
OUTSIDE = int(os.environ.get("VISDOM_PUBLISHED_PORT") or 8098)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", INSIDE)
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))


async def main(server: subprocess.Popen) -> int:
    async with await asyncio.start_server(forward, "0.0.0.0", OUTSIDE):
        return await asyncio.to_thread(server.wait)  # without the server there is nothing to pass on to


if __name__ == "__main__":
    server = subprocess.Popen([sys.executable, "-m", "vgg_course.visdom_server", "--port", str(INSIDE)])
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    raise SystemExit(asyncio.run(main(server)))
