"""Tells a server which images are on this node: one that was started anew does not know, and would build them again.

A hundred thousand are told as they are found, few at a time: mounts and removals need the same threads.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from concurrent.futures import Executor

from squall.agent.known_images import KnownImages
from squall.protocol.errors import ChannelClosed
from squall.protocol.node import NODE_IMAGES_MAX, NodeImages
from squall.protocol.peer import Peer

_log = logging.getLogger("squall.agent.told_images")


async def tell_images(images: KnownImages, peer: Peer, threads: Executor, steady: asyncio.Lock) -> None:
    """Say which images are here, some at a time. The next connection is told anew.

    Args:
        steady: while it is held, no image is removed.
    """
    loop, here = asyncio.get_running_loop(), images.here()
    try:
        while True:
            # Said before a removal begins, or looked at after it: the server is to know of it for good.
            async with steady:
                found = await loop.run_in_executor(threads, lambda: tuple(itertools.islice(here, NODE_IMAGES_MAX)))
                peer.event("NodeImages", NodeImages(found))
            if not found:
                return
            await peer.channel.drain()
    except ChannelClosed as error:
        _log.info("the server was not told all images: %s", error)
