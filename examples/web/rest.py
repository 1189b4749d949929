"""One function as an endpoint, and a whole FastAPI application.

squall serve examples/web/rest.py      # prints both addresses; a change of this file is served at once
curl 'http://web-rest-square-dev.localhost:7855/?x=7'
curl -d '{"name": "tea", "price": 3.5}' -H 'Content-Type: application/json' http://web-rest-shop-dev.localhost:7855/items
curl http://web-rest-shop-dev.localhost:7855/items/tea
"""

import squall

image = squall.Image.debian_slim().uv_pip_install("fastapi")
app = squall.App("web-rest", image=image)
prices = squall.Dict.from_name("web-rest-prices", create_if_missing=True)


@app.function()
@squall.fastapi_endpoint(docs=True)  # its pages are at /docs
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

    api = FastAPI(title="Shop")

    # In a Dict, and not in a variable: the next request may go to another container.
    @api.post("/items", status_code=201)
    async def add(item: Item) -> Item:
        await prices.put.aio(item.name, item.price)
        return item

    @api.get("/items/{name}")
    async def get(name: str) -> Item:
        price = await prices.get.aio(name)
        if price is None:
            raise HTTPException(404, f"no item {name!r}")
        return Item(name=name, price=price)

    return api
