"""An endpoint: one function of the user's as a FastAPI application with one route."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from squall.exception import InvalidError
from squall.guest.web.exchange import Application
from squall.protocol.web import WebSpec

INSTALL = "add it to the image, as in image.uv_pip_install('fastapi[standard]')"


def endpoint_application(function: Callable[..., Any], spec: WebSpec) -> Application:
    """The application.

    Raises:
        InvalidError: the image has no FastAPI.
    """
    try:
        # The image's, and nothing that we depend on.
        fastapi, cors = (importlib.import_module(name) for name in ("fastapi", "fastapi.middleware.cors"))
    except ImportError as error:
        message = f"@squall.fastapi_endpoint() needs FastAPI, which cannot be imported here ({error}); {INSTALL}"
        raise InvalidError(message) from error
    hidden: dict[str, Any] = {} if spec.has_docs else {"docs_url": None, "redoc_url": None, "openapi_url": None}
    application: Any = fastapi.FastAPI(**hidden)
    application.add_middleware(
        cors.CORSMiddleware, allow_origins=["*"], allow_credentials=True, allow_methods=["*"], allow_headers=["*"]
    )
    application.add_api_route("/", function, methods=[spec.method])
    made: Application = application
    return made
