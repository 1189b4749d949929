"""A page that shows an answer while it is being made: server-sent events.

squall serve examples/web/chat_page.py      # open the address that it prints
"""

import asyncio
import json

import squall

image = squall.Image.debian_slim().uv_pip_install("starlette")
app = squall.App("web-chat", image=image)

PAGE = """<!doctype html><title>Chat</title>
<form id=form><input id=text value="how does a fork work" size=40><button>Ask</button></form><pre id=answer></pre>
<script>
form.onsubmit = (event) => {
  event.preventDefault()
  answer.textContent = ""
  // Beside this page, wherever it is: by the name of a host or below a path.
  const source = new EventSource(location.pathname.replace(/\\/$/, "") + "/answer?to=" + encodeURIComponent(text.value))
  source.onmessage = (event) => { answer.textContent += JSON.parse(event.data) + " " }
  source.addEventListener("end", () => { source.close(); document.title = "Answered" })
}
</script>"""


@app.function()
@squall.concurrent(max_inputs=100)
@squall.asgi_app()
def chat():
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, StreamingResponse
    from starlette.routing import Route

    async def page(request: Request):
        return HTMLResponse(PAGE)

    async def answer(request: Request):
        async def words():
            for word in f"you asked {request.query_params['to']!r}, and that is a good question".split():
                yield f"data: {json.dumps(word)}\n\n"
                await asyncio.sleep(0.05)  # where a model would think
            yield "event: end\ndata: null\n\n"

        return StreamingResponse(words(), media_type="text/event-stream")

    return Starlette(routes=[Route("/", page), Route("/answer", answer)])
