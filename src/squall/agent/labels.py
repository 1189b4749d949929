"""What this agent's containers are labelled with, so that the next agent knows them."""

from __future__ import annotations

KIND_LABEL = "squall.kind"
FUNCTION_KIND = "function"
TEMPLATE_KIND = "template"
BYTECODE_KIND = "bytecode"
BUILD_KIND = "image-build"
