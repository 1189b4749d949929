"""Programs that found no network are understood, in the words that they really have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from squall.agent.image.unreached import unreached

APT = """\
W: Failed to fetch http://mirror.test/debian/dists/bookworm/InRelease  Temporary failure resolving 'mirror.test'
W: Some index files failed to download. They have been ignored, or old ones used instead.
E: Unable to locate package git
"""
APT_REFUSED = """\
E: Failed to fetch http://mirror.test/dists/bookworm/InRelease  Could not connect to mirror.test:80 (192.0.2.1). \
- connect (111: Connection refused)
"""
APT_UNREACHABLE = (
    "Cannot initiate the connection to mirror.test:80 (2001:db8::1). - connect (101: Network is unreachable)"
)
UV = """\
error: Failed to fetch: `https://bob:pw@mirror.test/simple/six/`
  Caused by: Request failed after 3 retries
  Caused by: error sending request for url (https://mirror.test/simple/six/)
  Caused by: client error (Connect)
"""
PIP = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('<pip._vendor.urllib3.connection.\
HTTPSConnection object at 0x7f>: Failed to establish a new connection: [Errno -3] Temporary failure in name \
resolution')'
ERROR: No matching distribution found for six
"""
PIP_LATER = (
    "HTTPSConnection(host='mirror.test', port=443): Failed to resolve 'mirror.test' ([Errno -3] Temporary failure)"
)


@pytest.mark.parametrize("text", [APT, APT_REFUSED, APT_UNREACHABLE, UV, PIP_LATER])
def test_host_that_could_not_be_reached_is_named(text: str) -> None:
    assert unreached(text) == "no network: mirror.test could not be reached"


def test_older_pip_does_not_name_it() -> None:
    assert unreached(PIP) == "no network: a host could not be reached"


@pytest.mark.parametrize(
    "text",
    [
        "E: Unable to locate package git",
        "error: Failed to fetch: `https://mirror.test/simple/six/`\n  Caused by: HTTP status client error (404)",
        "curl: (7) Failed to connect to localhost port 80: Connection refused",
        "psql: error: connection to server at 127.0.0.1, port 5432 failed: Connection refused",
        "make: *** [all] Error 1",
    ],
)
def test_other_failures_are_none_of_the_network(text: str) -> None:
    assert unreached(text) == ""


def said_without_a_network(*command: str, **env: str) -> str:
    environ = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **env}
    command = ("unshare", "--map-root-user", "--net", *command)
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=100)
    assert ended.returncode != 0
    return ended.stdout + ended.stderr


@pytest.mark.long
def test_words_of_the_programs_that_are_here(tmp_path: Path) -> None:
    options = ("--target", str(tmp_path / "made"), "--index-url", "https://mirror.test/simple", "six")
    uv = str(Path(sys.executable).parent / "uv")
    apt = ("apt-get", "-o", f"Dir={tmp_path}", "-o", f"Dir::State::status={tmp_path}/status")
    for folder in ("etc/apt/sources.list.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "status").touch()
    (tmp_path / "etc/apt/sources.list").write_text("deb http://mirror.test/debian stable main\n")

    said = (
        said_without_a_network(uv, "--no-cache", "--no-config", "pip", "install", *options, UV_HTTP_RETRIES="0"),
        said_without_a_network(
            *(sys.executable, "-m", "pip", "--isolated", "install", "--retries", "1", *options),
            PIP_CONFIG_FILE=os.devnull,
        ),
        said_without_a_network(
            *apt, "-qq", "-o", "APT::Sandbox::User=root", "-o", "APT::Update::Error-Mode=any", "update"
        ),
    )

    for text in said:
        assert unreached(text).startswith("no network: "), text
    assert "mirror.test" in unreached(said[0])
    assert "mirror.test" in unreached(said[2])
