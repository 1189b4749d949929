"""A room in which everybody hears everybody: WebSockets of one container.

squall serve examples/web/websocket.py
"""

import squall

image = squall.Image.debian_slim().uv_pip_install("starlette")
app = squall.App("web-room", image=image)


@app.function(max_containers=1)
@squall.concurrent(max_inputs=1000)
@squall.asgi_app()
def room():
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocketDisconnect

    present = set()

    async def enter(socket):
        await socket.accept()
        present.add(socket)
        try:
            while True:
                said = await socket.receive_text()
                for one in list(present):
                    await one.send_text(said)
        except WebSocketDisconnect:
            pass
        finally:
            present.discard(socket)

    return Starlette(routes=[WebSocketRoute("/", enter)])
