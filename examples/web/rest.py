"""One function as an endpoint, and a whole FastAPI application.

squall serve examples/web/rest.py      # prints both addresses; a change of this file is served at once
curl 'http://web-rest-square-dev.localhost:7855/?x=7'
"""

import squall

image = squall.Image.debian_slim().uv_pip_install("fastapi[standard]")
app = squall.App("web-rest", image=image)


@app.function()
@squall.fastapi_endpoint(docs=True)
def square(x: int = 2) -> dict[str, int]:
    return {"x": x, "square": x * x}


@app.function(scaledown_window=60)
@squall.concurrent(max_inputs=100)
@squall.asgi_app()
def shop():
    from fastapi import FastAPI, HTTPException
    from pydantic import BaseModel

    class Item(BaseModel):
        name: str
        price: float

    api = FastAPI()
    items: dict[int, Item] = {}  # of this container: what is to last belongs into a squall.Dict

    @api.post("/items", status_code=201)
    async def add(item: Item) -> dict[str, int]:
        items[len(items)] = item
        return {"id": len(items) - 1}

    @api.get("/items/{item_id}")
    async def get(item_id: int) -> Item:
        if item_id not in items:
            raise HTTPException(404, f"no item {item_id}")
        return items[item_id]

    return api
