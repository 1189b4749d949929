"""A language model as OpenAI's clients know it, streaming; the model here repeats what it is told.

squall deploy examples/web/language_model.py

client = openai.OpenAI(base_url="http://127.0.0.1:7855/w/web-model-model-api/v1", api_key="-")
"""

import asyncio
import json
import time

import squall

image = squall.Image.debian_slim().uv_pip_install("fastapi")
app = squall.App("web-model", image=image)


@app.cls(scaledown_window=120)
@squall.concurrent(max_inputs=32)
class Model:
    @squall.enter()
    def load(self):
        self.name = "parrot-1"  # where weights would be loaded, once for each container

    async def words(self, messages):
        for word in messages[-1]["content"].split():
            await asyncio.sleep(0.01)
            yield f"{word} "

    @squall.asgi_app()
    def api(self):
        from fastapi import FastAPI, Request
        from fastapi.responses import StreamingResponse

        web = FastAPI()

        def said(kind, **choice):
            choices = [{"index": 0, "finish_reason": None, **choice}]
            return {"id": "1", "object": kind, "created": int(time.time()), "model": self.name, "choices": choices}

        @web.post("/v1/chat/completions")
        async def complete(request: Request):
            asked = await request.json()
            if not asked.get("stream"):
                text = "".join([word async for word in self.words(asked["messages"])])
                message = {"role": "assistant", "content": text}
                return said("chat.completion", message=message, finish_reason="stop")

            async def events():
                async for word in self.words(asked["messages"]):
                    yield f"data: {json.dumps(said('chat.completion.chunk', delta={'content': word}))}\n\n"
                yield "data: [DONE]\n\n"

            return StreamingResponse(events(), media_type="text/event-stream")

        return web
