"""A language model as OpenAI's clients know it, streaming; the model here repeats what it is told.

squall deploy examples/web/language_model.py

client = openai.OpenAI(base_url="http://127.0.0.1:7855/w/web-model-model-api/v1", api_key="-")
client.chat.completions.create(model="parrot-1", messages=[{"role": "user", "content": "Hello!"}], stream=True)
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import squall

image = squall.Image.debian_slim().uv_pip_install("fastapi")
app = squall.App("web-model", image=image)


@app.cls(scaledown_window=120)
@squall.concurrent(max_inputs=32)
class Model:
    @squall.enter()
    def load(self) -> None:
        self.name = "parrot-1"  # where weights would be loaded, once for each container

    async def words(self, messages: list[dict[str, Any]]) -> AsyncIterator[str]:
        for word in messages[-1]["content"].split():
            await asyncio.sleep(0.01)  # where the model would think
            yield f"{word} "

    @squall.asgi_app()
    def api(self):
        from fastapi import FastAPI
        from fastapi.responses import StreamingResponse
        from pydantic import BaseModel

        class Asked(BaseModel):
            messages: list[dict[str, Any]]
            stream: bool = False

        web = FastAPI()

        @web.get("/v1/models")
        async def models() -> dict[str, Any]:
            return {"object": "list", "data": [{"id": self.name, "object": "model", "created": 0, "owned_by": "me"}]}

        @web.post("/v1/chat/completions", response_model=None)
        async def complete(asked: Asked) -> dict[str, Any] | StreamingResponse:
            answer = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": self.name}

            def said(kind: str, finish_reason: str | None = None, **choice: Any) -> dict[str, Any]:
                return {**answer, "object": kind, "choices": [{"index": 0, "finish_reason": finish_reason, **choice}]}

            async def events() -> AsyncIterator[str]:
                def event(finish_reason: str | None = None, **delta: str) -> str:
                    return f"data: {json.dumps(said('chat.completion.chunk', finish_reason, delta=delta))}\n\n"

                yield event(role="assistant")
                # A client that leaves ends this loop, and with it the model's work.
                async for word in self.words(asked.messages):
                    yield event(content=word)
                yield event("stop")
                yield "data: [DONE]\n\n"

            if asked.stream:
                return StreamingResponse(events(), media_type="text/event-stream")
            text = "".join([word async for word in self.words(asked.messages)])
            return said("chat.completion", "stop", message={"role": "assistant", "content": text})

        return web
