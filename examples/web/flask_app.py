"""A Flask application, as it is.

squall serve examples/web/flask_app.py
"""

import squall

image = squall.Image.debian_slim().uv_pip_install("flask")
app = squall.App("web-flask", image=image)


@app.function()
@squall.concurrent(max_inputs=10)
@squall.wsgi_app()
def site():
    from flask import Flask, request, url_for

    web = Flask(__name__)

    @web.get("/")
    def hello():
        return f"Hello {request.args.get('name', 'World')}, I am at {url_for('hello')}\n"

    return web
