"""The configuration: defaults, what may be set, what is refused and how."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from squall.main import config as config_module
from squall.main.config import Config, ConfigError, read_config, told_settings

KEY = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
SETTINGS = Path(__file__).parents[2] / "docs/settings.md"


def test_what_is_set_is_told_as_it_is_written_but_for_passwords() -> None:
    given = {
        "SQUALL_IDLE_EXIT_S": "0", "SQUALL_PYTHON_IMAGE": "none", "SQUALL_LOG_BYTES_MAX": " 2g ",
        "SQUALL_CPU_MILLI": "", "SQUALL_TOKEN": "t0k", "SQUALL_SECRET_KEY": KEY, "SQUALL_DATABASE_URL": "postgresql+psycopg://me:secret@host/db",
        "SQUALL_BLOB_URL": "s3://bucket/x?secret_access_key=secret", "SQUALL_LAYER_URL": "file:///srv/layers",
    }  # fmt: skip

    assert told_settings({**given, "HOME": "/root"}) == {
        "SQUALL_IDLE_EXIT_S": "0", "SQUALL_PYTHON_IMAGE": "none", "SQUALL_LOG_BYTES_MAX": "2g",
        "SQUALL_DATABASE_URL": "postgresql+psycopg://host/db (and more)",
        "SQUALL_BLOB_URL": "s3://bucket/x (and more)", "SQUALL_LAYER_URL": "file:///srv/layers",
    }  # fmt: skip


def test_each_setting_is_in_the_table_with_its_default() -> None:
    rows = [line.split(" | ") for line in SETTINGS.read_text().splitlines() if line.startswith("| `SQUALL_")]
    told = {row[0].strip("|` "): row[1] for row in rows}

    assert list(told) == [f"SQUALL_{one.name.upper()}" for one in dataclasses.fields(Config)]
    for one in dataclasses.fields(Config):
        if isinstance(one.default, int | float):
            assert config_module._bytes(told[f"SQUALL_{one.name.upper()}"]) == one.default


def test_nothing_set_is_all_defaults() -> None:
    assert read_config({"SQUALL_DATA_DIR": "", "PATH": "/bin"}) == Config()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("http_port", "0", 0),
        ("secret_key", KEY, (b"k" * 32,)),
        ("secret_key", f"{KEY}, {KEY}", (b"k" * 32, b"k" * 32)),
        ("http_port", "8080", 8080),
        ("http_insecure", "1", True),
        ("http_insecure", "no", False),
        ("tunnel_ports", "40000-40009", range(40_000, 40_010)),
        ("tunnel_ports", "40000", range(40_000, 40_001)),
        ("tunnel_ports", "none", range(0)),
        ("tunnel_plain", "1", True),
        ("http_names", "Squall.Example, other ,", ("squall.example", "other")),
        ("idle_exit_s", "0", None),
        ("idle_exit_s", "2.5", 2.5),
        ("log_bytes_max", "512m", 512 * 2**20),
        ("log_bytes_max", "1000", 1_000),
        ("blob_bytes_max", "2T", 2 * 2**40),
        ("step_timeout_s", "7200", 7_200.0),
        ("step_timeout_s", "0", None),
        ("step_bytes_max", "200g", 200 * 2**30),
        ("package_bytes_max", "0", 0),
        ("database_url", "postgresql+psycopg:///squall", "postgresql+psycopg:///squall"),
        ("cpu_milli", "1500", 1500),
        ("start_path", "plain", "plain"),
        ("template_memory_mib", "0", 0),
        ("python_image", "none", ""),
        ("python_image", "registry.example/py:{series}", "registry.example/py:{series}"),
    ],
)
def test_variable_sets_its_field(name: str, text: str, value: Any) -> None:
    assert getattr(read_config({f"SQUALL_{name.upper()}": text}), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("HTTP_PORT", "65536"),
        ("HTTP_PORT", "-1"),
        ("TUNNEL_PORTS", "0"),
        ("TUNNEL_PORTS", "40001-40000"),
        ("TUNNEL_PORTS", "1-65536"),
        ("HTTP_PORT", "http"),
        ("IDLE_EXIT_S", "soon"),
        ("IDLE_EXIT_S", "-5"),
        ("IDLE_EXIT_S", "nan"),
        ("LOG_BYTES_MAX", "1 GB"),
        ("NETWORK_SLOTS", "many"),
        ("START_PATH", "shortest"),
        ("PYTHON_IMAGE", "python:3.11"),
        ("PYTHON_IMAGE", "--python:{series}"),
    ],
)
def test_impossible_value_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"SQUALL_{name}.*must be"):
        read_config({f"SQUALL_{name}": text})


def test_a_wrong_key_of_secrets_is_refused_and_not_repeated() -> None:
    for text in ("hunter2", KEY + ",hunter2", KEY[:-2]):
        with pytest.raises(ConfigError, match="SQUALL_SECRET_KEY: must be base64 of 32 bytes") as caught:
            read_config({"SQUALL_SECRET_KEY": text})
        assert text not in str(caught.value)
    assert KEY not in repr(read_config({"SQUALL_SECRET_KEY": KEY}))


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, ""),
        ({"SQUALL_BLOB_URL": "s3://bucket/blobs/"}, "s3://bucket/blobs/layers"),
        ({"SQUALL_BLOB_URL": "az://c/p?sig=x"}, "az://c/p/layers?sig=x"),
        ({"SQUALL_BLOB_URL": "s3://bucket", "SQUALL_LAYER_URL": "none"}, ""),
        ({"SQUALL_BLOB_URL": "s3://bucket", "SQUALL_LAYER_URL": "file:///there"}, "file:///there"),
    ],
)
def test_layers_are_put_where_it_is_said_or_beside_the_blobs_of_a_bucket(environ: dict[str, str], url: str) -> None:
    assert read_config(environ).layers_at == url


def test_command_line_beats_the_environment() -> None:
    assert read_config({"SQUALL_DATA_DIR": "/srv/a"}, "/srv/b").data_dir == Path("/srv/b")


def test_relative_data_directory_becomes_absolute() -> None:
    assert read_config({}, "data").data_dir == Path.cwd() / "data"


def test_data_directory_too_long_for_sockets_is_refused() -> None:
    with pytest.raises(ConfigError, match="too long"):
        read_config({}, "/" + "x" * 90)


def test_every_field_can_be_set_and_says_what_it_is() -> None:
    assert set(config_module._READERS) == {field.name for field in dataclasses.fields(Config)}
