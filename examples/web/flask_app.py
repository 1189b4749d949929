"""A Flask application, as it is.

squall serve examples/web/flask_app.py
curl 'http://web-flask-site-dev.localhost:7855/?name=Ada'
"""

import squall

image = squall.Image.debian_slim().uv_pip_install("flask")
app = squall.App("web-flask", image=image)


@app.function()
@squall.concurrent(max_inputs=10)  # each in a thread
@squall.wsgi_app()
def site():
    from flask import Flask, request, url_for

    web = Flask(__name__)

    @web.get("/")
    def hello():
        # Links hold at each of its addresses, by the name of a host and below a path.
        return f"Hello {request.args.get('name', 'World')}, I am at {url_for('hello', _external=True)}\n"

    return web
