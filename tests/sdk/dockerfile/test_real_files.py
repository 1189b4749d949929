"""Dockerfiles in the style people write them, read whole: what a build would do, line by line."""

from __future__ import annotations

import pytest

from squall.sdk.dockerfile.records import (
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Instruction,
    NoEffect,
    Run,
    Shell,
    Stage,
    User,
    Workdir,
)
from tests.sdk.dockerfile.reading import read


def told(instruction: Instruction) -> str:
    """An instruction in one line: what is left of it once all is filled in."""
    match instruction:
        case Env():
            return "env " + " ".join(f"{name}={value.template}" for name, value in instruction.variables.items())
        case Arg():
            return f"arg {instruction.name}={instruction.value}"
        case Run():
            what = instruction.command or instruction.script or str(list(instruction.arguments))
            mounts = "".join(f"[{one.kind} {one.target.template}] " for one in instruction.mounts)
            return f"run {mounts}{' '.join(what.split())}"
        case Copy():
            origin = f"stage {instruction.from_stage}" if instruction.from_stage is not None else instruction.from_image
            sources = " ".join([*instruction.sources, *(one.name for one in instruction.inline), *instruction.urls])
            owner = f" as {instruction.owner.template}" if instruction.owner else ""
            return f"{origin or 'context'}: {sources} -> {instruction.target.template}{owner}"
        case Workdir():
            return f"workdir {instruction.path.template}"
        case User():
            return f"user {instruction.name.template}"
        case Shell() | Entrypoint() | Cmd():
            return f"{type(instruction).__name__.lower()} {list(instruction.words)}"
        case NoEffect():
            return f"({instruction.keyword.lower()})"


def told_stage(stage: Stage) -> list[str]:
    base = stage.base or f"stage {stage.base_stage}"
    return [f"{stage.name or 'image'} from {base}", *(told(one) for one in stage.instructions)]


UV = (
    r"""
    # syntax=docker/dockerfile:1
    ARG PYTHON_VERSION=3.12
    FROM registry.example/astral-sh/uv:0.5 AS uv
    FROM python:${PYTHON_VERSION}-slim-bookworm AS builder
    COPY --from=uv /uv /uvx /bin/
    ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy
    WORKDIR /app
    RUN --mount=type=cache,target=/root/.cache/uv \
        --mount=type=bind,source=uv.lock,target=uv.lock \
        --mount=type=bind,source=pyproject.toml,target=pyproject.toml \
        uv sync --frozen --no-install-project --no-dev
    ADD . /app
    RUN --mount=type=cache,target=/root/.cache/uv uv sync --frozen --no-dev

    FROM python:${PYTHON_VERSION}-slim-bookworm
    RUN groupadd -r app && useradd -r -d /app -g app -N app
    COPY --from=builder --chown=app:app /app /app
    ENV PATH="/app/.venv/bin:$PATH"
    USER app
    WORKDIR /app
    EXPOSE 8000
    HEALTHCHECK --interval=30s CMD curl -f http://localhost:8000/ || exit 1
    CMD ["uvicorn", "app:app", "--host", "0.0.0.0"]
    """,
    [
        ["uv from registry.example/astral-sh/uv:0.5"],
        [
            "builder from python:3.12-slim-bookworm",
            "stage 0: /uv /uvx -> /bin/",
            "env UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy",
            "workdir /app",
            "run [cache /root/.cache/uv] [bind uv.lock] [bind pyproject.toml] "
            "uv sync --frozen --no-install-project --no-dev",
            "context: . -> /app",
            "run [cache /root/.cache/uv] uv sync --frozen --no-dev",
        ],
        [
            "image from python:3.12-slim-bookworm",
            "run groupadd -r app && useradd -r -d /app -g app -N app",
            "stage 1: /app -> /app as app:app",
            "env PATH=/app/.venv/bin:${PATH}",
            "user app",
            "workdir /app",
            "(expose)",
            "(healthcheck)",
            "cmd ['uvicorn', 'app:app', '--host', '0.0.0.0']",
        ],
    ],
)

CUDA = (
    r"""
    ARG CUDA=12.4.1
    ARG OS=ubuntu22.04
    FROM nvidia/cuda:${CUDA}-cudnn-devel-${OS}
    LABEL maintainer="Some One <one@example.org>" \
          description="Training"
    ARG DEBIAN_FRONTEND=noninteractive
    ARG CUDA
    ENV LANG=C.UTF-8 LC_ALL=C.UTF-8
    # System packages
    RUN apt-get update && apt-get install -y --no-install-recommends \
            build-essential \
            # needed by opencv
            libgl1 \

            libglib2.0-0 \
        && rm -rf /var/lib/apt/lists/*   # tidy: as people write it, and it is only read here
    ENV LD_LIBRARY_PATH=/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}
    SHELL ["/bin/bash", "-o", "pipefail", "-c"]
    RUN curl -fsSL https://files.example/install.sh | bash -s -- --cuda "${CUDA%.*}"
    COPY requirements*.txt ./
    RUN pip install --no-cache-dir -r requirements.txt
    COPY --chmod=755 entrypoint.sh /usr/local/bin/
    VOLUME ["/data"]
    ENTRYPOINT ["/usr/local/bin/entrypoint.sh"]
    CMD python train.py --epochs 10
    """,
    [
        [
            "image from nvidia/cuda:12.4.1-cudnn-devel-ubuntu22.04",
            "(label)",
            "arg DEBIAN_FRONTEND=noninteractive",
            "arg CUDA=12.4.1",
            "env LANG=C.UTF-8 LC_ALL=C.UTF-8",
            "run apt-get update && apt-get install -y --no-install-recommends build-essential libgl1 libglib2.0-0 "
            "&& rm -rf /var/lib/apt/lists/* # tidy: as people write it, and it is only read here",
            "env LD_LIBRARY_PATH=/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}}",
            "shell ['/bin/bash', '-o', 'pipefail', '-c']",
            'run curl -fsSL https://files.example/install.sh | bash -s -- --cuda "${CUDA%.*}"',
            "context: requirements*.txt -> ./",
            "run pip install --no-cache-dir -r requirements.txt",
            "context: entrypoint.sh -> /usr/local/bin/",
            "(volume)",
            "entrypoint ['/usr/local/bin/entrypoint.sh']",
            "cmd ['/bin/bash', '-o', 'pipefail', '-c', 'python train.py --epochs 10']",
        ]
    ],
)

CONDA = (
    r"""
    from continuumio/miniconda3
    maintainer one@example.org
    copy environment.yml /tmp/environment.yml
    run conda env create -f /tmp/environment.yml && conda clean -afy
    env PATH /opt/conda/envs/app/bin:$PATH
    env CONDA_DEFAULT_ENV app
    run echo "source activate app" > ~/.bashrc
    workdir /src
    add . .
    entrypoint ["conda", "run", "--no-capture-output", "-n", "app"]
    cmd ["python", "main.py"]
    """,
    [
        [
            "image from continuumio/miniconda3",
            "(maintainer)",
            "context: environment.yml -> /tmp/environment.yml",
            "run conda env create -f /tmp/environment.yml && conda clean -afy",
            "env PATH=/opt/conda/envs/app/bin:${PATH}",
            "env CONDA_DEFAULT_ENV=app",
            'run echo "source activate app" > ~/.bashrc',
            "workdir /src",
            "context: . -> .",
            "entrypoint ['conda', 'run', '--no-capture-output', '-n', 'app']",
            "cmd ['python', 'main.py']",
        ]
    ],
)

HEREDOCS = (
    r"""
    # check=skip=all
    FROM debian:12-slim
    ARG PORT=8080
    RUN <<EOT bash
      set -ex
      apt-get update
    EOT
    RUN <<EOF
    #!/usr/bin/env python3
    print("hello")
    EOF
    COPY <<EOF /etc/app.toml
    port = ${PORT}
    home = "\$HOME"
    EOF
    COPY --chmod=0755 <<'EOF' /usr/local/bin/start
    #!/bin/sh
    exec app "$@"
    EOF
    COPY <<a.conf <<b.conf common.conf /etc/app/
    a
    a.conf
    b
    b.conf
    RUN ["/usr/local/bin/start", "--check"]
    STOPSIGNAL SIGINT
    """,
    [
        [
            "image from debian:12-slim",
            "arg PORT=8080",
            "run <<EOT bash set -ex apt-get update EOT",
            'run #!/usr/bin/env python3 print("hello")',
            "context: EOF -> /etc/app.toml",
            "context: EOF -> /usr/local/bin/start",
            "context: common.conf a.conf b.conf -> /etc/app/",
            "run ['/usr/local/bin/start', '--check']",
            "(stopsignal)",
        ]
    ],
)

NODE_AND_GO = (
    r"""
    FROM --platform=$BUILDPLATFORM golang:1.23 AS build
    ARG TARGETOS TARGETARCH
    WORKDIR /src
    COPY go.mod go.sum ./
    RUN --mount=type=cache,target=/go/pkg/mod go mod download
    COPY . .
    RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -o /out/app ./cmd/app

    FROM node:20-alpine AS web
    WORKDIR /web
    COPY web/package.json web/package-lock.json* ./
    RUN npm ci
    COPY web .
    ARG API=/api
    RUN npm run build -- --api=$API

    FROM scratch
    COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
    COPY --from=build --link /out/app /app
    COPY --from=web /web/dist /static
    ENTRYPOINT ["/app"]
    """,
    [
        [
            "build from golang:1.23",
            "arg TARGETOS=linux",
            "arg TARGETARCH=amd64",
            "workdir /src",
            "context: go.mod go.sum -> ./",
            "run [cache /go/pkg/mod] go mod download",
            "context: . -> .",
            "run CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -o /out/app ./cmd/app",
        ],
        [
            "web from node:20-alpine",
            "workdir /web",
            "context: web/package.json web/package-lock.json* -> ./",
            "run npm ci",
            "context: web -> .",
            "arg API=/api",
            "run npm run build -- --api=$API",
        ],
        [
            "image from scratch",
            "stage 0: /etc/ssl/certs/ca-certificates.crt -> /etc/ssl/certs/",
            "stage 0: /out/app -> /app",
            "stage 1: /web/dist -> /static",
            "entrypoint ['/app']",
        ],
    ],
)

SHARED_BASE = (
    r"""
    FROM ubuntu:24.04 AS base
    ENV APP=/srv/app \
        PYTHONUNBUFFERED=1
    RUN apt-get update && \
        apt-get install -y python3

    FROM base AS tests
    RUN pytest

    FROM base AS final
    WORKDIR ${APP}
    COPY --chown=1000:1000 src/ ${APP}/src/
    ARG ENVIRONMENT MODEL
    COPY settings-${ENVIRONMENT:-production}.toml $APP/settings.toml
    ADD https://files.example/model-${MODEL:-small}.bin ${APP}/model.bin
    USER 1000:1000
    ONBUILD RUN echo later
    CMD ["python3", "-m", "src"]
    """,
    [
        [
            "base from ubuntu:24.04",
            "env APP=/srv/app PYTHONUNBUFFERED=1",
            "run apt-get update && apt-get install -y python3",
        ],
        ["tests from stage 0", "run pytest"],
        [
            "final from stage 0",
            "workdir /srv/app",
            "context: src/ -> /srv/app/src/ as 1000:1000",
            "arg ENVIRONMENT=None",
            "arg MODEL=None",
            "context: settings-production.toml -> /srv/app/settings.toml",
            "context: https://files.example/model-small.bin -> /srv/app/model.bin",
            "user 1000:1000",
            "(onbuild)",
            "cmd ['python3', '-m', 'src']",
        ],
    ],
)


@pytest.mark.parametrize(
    ("content", "stages"),
    [UV, CUDA, CONDA, HEREDOCS, NODE_AND_GO, SHARED_BASE],
    ids=["uv", "cuda", "conda", "heredocs", "node_and_go", "shared_base"],
)
def test_real_files_are_read(content: str, stages: list[list[str]]) -> None:
    found = read(content)

    assert [told_stage(stage) for stage in found.stages] == stages


def test_stages_that_nobody_needs_are_not_built() -> None:
    assert [stage.name for stage in read(SHARED_BASE[0]).order()] == ["base", "final"]
