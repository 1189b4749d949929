"""A folder over HTTP/1.1, with ranges; every answer comes a given time late. Arguments: FOLDER PORT LATENCY_S."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path


async def serve(folder: Path, latency_s: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection."""
    loop = asyncio.get_running_loop()
    while head := (await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""):
        lines = head.decode().split("\r\n")
        name = lines[0].split(" ")[1].lstrip("/")
        headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines[1:])}
        await asyncio.sleep(latency_s)
        path = folder / name
        if lines[0].startswith("PUT "):
            path.write_bytes(await reader.readexactly(int(headers["content-length"])))
            writer.write(b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n')
            continue
        if not path.is_file():
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            continue
        size = path.stat().st_size
        begin, end = 0, size
        status, extra = "200 OK", ""
        if wanted := headers.get("range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            begin, end = int(first), min(int(last) + 1, size)
            status, extra = "206 Partial Content", f"Content-Range: bytes {begin}-{end - 1}/{size}\r\n"
        dates = 'ETag: "x"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n'
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {end - begin}\r\n{dates}{extra}\r\n".encode())
        await writer.drain()
        with path.open("rb") as file:
            await loop.sendfile(writer.transport, file, begin, end - begin)


async def main() -> None:
    """Serve until killed."""
    folder, port, latency_s = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(folder, latency_s, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(main())
