"""A room in which everybody hears everybody: WebSockets of one container.

squall serve examples/web/websocket.py
python -m websockets ws://127.0.0.1:7855/w/web-room-room-dev/      # twice, and say something
"""

import asyncio

import squall

image = squall.Image.debian_slim().uv_pip_install("starlette")
app = squall.App("web-room", image=image)


# One container, for who is in another one would not be heard. A socket counts as a request until it is closed, and is
# closed after the function's timeout.
@app.function(max_containers=1, timeout=24 * 3600)
@squall.concurrent(max_inputs=1000)
@squall.asgi_app()
def room():
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    present: set[WebSocket] = set()

    async def say(text: str) -> None:
        # To one who is just leaving it fails, which must not end the socket of who speaks.
        await asyncio.gather(*(one.send_text(text) for one in present), return_exceptions=True)

    async def enter(socket: WebSocket) -> None:
        await socket.accept()
        present.add(socket)
        await say(f"{len(present)} here")
        try:
            while True:
                await say(await socket.receive_text())
        except WebSocketDisconnect:
            pass
        finally:
            present.discard(socket)

    return Starlette(routes=[WebSocketRoute("/", enter)])
