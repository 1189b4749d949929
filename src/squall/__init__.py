"""Squall: serverless Python on your own machines.

app = squall.App("hello")

@app.function()
def square(x: int) -> int:
    return x * x

with app.run():
    print(square.remote(7))
"""

from __future__ import annotations

# Not from typing, which alone takes longer to load than this; type checkers know the name.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from squall.exception import Error as Error
    from squall.sdk._batched import batched as batched
    from squall.sdk._concurrent import concurrent as concurrent
    from squall.sdk._container import current_function_call_id as current_function_call_id
    from squall.sdk._container import current_input_id as current_input_id
    from squall.sdk._container import interact as interact
    from squall.sdk._container import is_local as is_local
    from squall.sdk._method import enter as enter
    from squall.sdk._method import exit as exit  # noqa: A004 - the name that programs use
    from squall.sdk._method import method as method
    from squall.sdk._output import enable_output as enable_output
    from squall.sdk._parameter import parameter as parameter
    from squall.sdk._web import asgi_app as asgi_app
    from squall.sdk._web import fastapi_endpoint as fastapi_endpoint
    from squall.sdk._web import web_server as web_server
    from squall.sdk._web import wsgi_app as wsgi_app
    from squall.sdk.app import App as App
    from squall.sdk.cloud_bucket_mount import CloudBucketMount as CloudBucketMount
    from squall.sdk.cls import Cls as Cls
    from squall.sdk.dict import Dict as Dict
    from squall.sdk.environment import Environment as Environment
    from squall.sdk.file_pattern_matcher import FilePatternMatcher as FilePatternMatcher
    from squall.sdk.function import Function as Function
    from squall.sdk.function_call import FunctionCall as FunctionCall
    from squall.sdk.image import Image as Image
    from squall.sdk.queue import Queue as Queue
    from squall.sdk.retries import Retries as Retries
    from squall.sdk.schedule import Cron as Cron
    from squall.sdk.schedule import Period as Period
    from squall.sdk.secret import Secret as Secret
    from squall.sdk.server import Server as Server
    from squall.sdk.tunnel import Tunnel as Tunnel
    from squall.sdk.tunnel import forward as forward
    from squall.sdk.volume import Volume as Volume
    from squall.sdk.workspace import Workspace as Workspace

# Where each name is; loaded when it is first used, because every container imports this package.
_PLACES = {
    "App": "squall.sdk.app",
    "Cls": "squall.sdk.cls",
    "CloudBucketMount": "squall.sdk.cloud_bucket_mount",
    "Dict": "squall.sdk.dict",
    "Environment": "squall.sdk.environment",
    "enter": "squall.sdk._method",
    "exit": "squall.sdk._method",
    "method": "squall.sdk._method",
    "parameter": "squall.sdk._parameter",
    "Cron": "squall.sdk.schedule",
    "Error": "squall.exception",
    "FilePatternMatcher": "squall.sdk.file_pattern_matcher",
    "Function": "squall.sdk.function",
    "FunctionCall": "squall.sdk.function_call",
    "Image": "squall.sdk.image",
    "Period": "squall.sdk.schedule",
    "Queue": "squall.sdk.queue",
    "Retries": "squall.sdk.retries",
    "Secret": "squall.sdk.secret",
    "Server": "squall.sdk.server",
    "Tunnel": "squall.sdk.tunnel",
    "Volume": "squall.sdk.volume",
    "Workspace": "squall.sdk.workspace",
    "asgi_app": "squall.sdk._web",
    "batched": "squall.sdk._batched",
    "concurrent": "squall.sdk._concurrent",
    "current_function_call_id": "squall.sdk._container",
    "current_input_id": "squall.sdk._container",
    "enable_output": "squall.sdk._output",
    "fastapi_endpoint": "squall.sdk._web",
    "forward": "squall.sdk.tunnel",
    "interact": "squall.sdk._container",
    "is_local": "squall.sdk._container",
    "web_server": "squall.sdk._web",
    "wsgi_app": "squall.sdk._web",
}

__all__ = [
    "App",
    "Cls",
    "CloudBucketMount",
    "Dict",
    "Environment",
    "enter",
    "exit",
    "method",
    "parameter",
    "Cron",
    "Error",
    "FilePatternMatcher",
    "Function",
    "FunctionCall",
    "Image",
    "Period",
    "Queue",
    "Retries",
    "Secret",
    "Server",
    "Tunnel",
    "Volume",
    "Workspace",
    "asgi_app",
    "batched",
    "concurrent",
    "current_function_call_id",
    "current_input_id",
    "enable_output",
    "fastapi_endpoint",
    "forward",
    "interact",
    "is_local",
    "web_server",
    "wsgi_app",
]


def __getattr__(name: str) -> object:
    import importlib  # cold start: the point of this function
    import sys  # cold start: loaded, but no name of this package

    place = _PLACES.get(name)
    if place is not None:
        found = getattr(importlib.import_module(place), name)
        globals()[name] = found
        return found
    if name in ("exception", "file_pattern_matcher", "functions", "types"):
        return importlib.import_module(f"squall.{name}")
    if name == "__version__":
        return importlib.import_module("squall.protocol.version").VERSION
    text = importlib.import_module("squall.sdk._later").of_package(name)
    if text:
        # `from squall import Volume` puts a text of its own in place of an AttributeError's; `hasattr` wants that one.
        is_from_import = sys._getframe(1).f_globals.get("__name__") in ("importlib._bootstrap", "_frozen_importlib")
        raise ImportError(text, name="squall") if is_from_import else AttributeError(text)
    raise AttributeError(f"module 'squall' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
