"""Findings: each problem is named with the command that ends it, and a healthy machine has none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from squall.runtime.checks.kernel import (
    check_cgroups,
    check_kernel,
    check_nested_namespaces,
    check_root,
    check_seccomp,
    checks_of_probe,
)
from squall.runtime.checks.machine import (
    PROGRAMS,
    check_disk,
    check_firewall,
    check_port,
    check_program,
    free_bytes_of,
)
from squall.runtime.checks.mirrors import (
    Answer,
    ask,
    check_answers,
    check_clock,
    find_python_indexes,
    parse_apt_sources,
    parse_pip_config,
    proxies_of,
    without_password,
)


def test_root_is_needed() -> None:
    assert check_root(0).status == "ok"
    assert check_root(1000).fix == "run it with sudo"


@pytest.mark.parametrize(
    ("release", "status"),
    [("6.1.0-18-amd64", "ok"), ("5.19.0", "ok"), ("5.15.0-91-generic", "fail"), ("10.0", "ok"), ("odd", "fail")],
)
def test_kernel_version(release: str, status: str) -> None:
    assert check_kernel(release).status == status


@pytest.mark.parametrize(
    ("settings", "status", "fix"),
    [
        (("", "", "96365"), "ok", ""),
        (("1", "0", "96365"), "ok", ""),
        (("0", "", "96365"), "warn", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (("", "1", "96365"), "warn", "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"),
        (("", "", "0"), "fail", "sysctl -w user.max_user_namespaces=65536"),
    ],
)
def test_settings_that_forbid_user_namespaces_come_with_their_remedy(
    settings: tuple[str, str, str], status: str, fix: str
) -> None:
    check = check_nested_namespaces(*settings)

    assert (check.status, check.fix) == (status, fix)


def test_kernel_without_seccomp_filters_fails() -> None:
    assert check_seccomp("kill_process errno allow").status == "ok"
    assert check_seccomp("").status == "fail"


def test_cgroups_without_memory_are_a_warning_with_the_boot_option(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu pids")

    check = check_cgroups(str(tmp_path))

    assert check.status == "warn"
    assert "memory" in check.finding
    assert "cgroup_enable=memory" in check.fix


def test_no_cgroups_at_all_fail(tmp_path: Path) -> None:
    assert check_cgroups(str(tmp_path)).fix == f"mount -t cgroup2 none {tmp_path}"


def test_probe_errors_become_findings() -> None:
    checks = {
        check.name: check for check in checks_of_probe({"overlay": "", "idmapped mounts": "EINVAL", "erofs": "ENODEV"})
    }

    assert checks["overlay"].status == "ok"
    assert checks["idmapped mounts"].status == "fail"
    assert "5.19" in checks["idmapped mounts"].fix
    assert checks["erofs"].status == "warn"


def test_missing_program_names_its_package(tmp_path: Path) -> None:
    check = check_program("tini-static", "tini", True, "the first process", path=str(tmp_path))

    assert (check.status, check.fix) == ("fail", "apt-get install tini")
    assert check_program("skopeo", "skopeo", False, "images", path=str(tmp_path)).status == "warn"
    assert check_program("sh", "dash", True, "shells").status == "ok"


def test_machine_without_what_templates_need_is_told_that_starts_are_plain(tmp_path: Path) -> None:
    checks = {program[0]: check_program(*program, path=str(tmp_path)) for program in PROGRAMS}

    assert (checks["catatonit"].status, checks["catatonit"].fix) == ("warn", "apt-get install catatonit")
    assert "without it all start plainly" in checks["catatonit"].finding


def test_port_in_use_fails_and_a_free_one_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        taken = check_port(port)

    assert taken.status == "fail"
    assert f"sport = :{port}" in taken.fix
    assert check_port(port).status == "ok"


@pytest.mark.parametrize(("gib", "status"), [(1, "fail"), (5, "warn"), (50, "ok")])
def test_disk_space(gib: int, status: str) -> None:
    assert check_disk("/var/lib/x", gib * 2**30).status == status


def test_free_space_of_a_directory_that_is_not_made_yet(tmp_path: Path) -> None:
    assert free_bytes_of(str(tmp_path / "a" / "b")) > 0


def test_firewall() -> None:
    assert check_firewall([["-P FORWARD ACCEPT"]], []).finding == "nothing drops forwarded packets"
    assert "inserted" in check_firewall([["-P FORWARD DROP"]], []).finding
    other = check_firewall([], ["nft chain x drops: nft insert rule x accept"])
    assert (other.status, other.finding, other.fix) == ("warn", "nft chain x drops", "nft insert rule x accept")


def test_apt_sources_of_both_forms() -> None:
    text = """\
# deb http://commented.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://one.example/debian/ bookworm main
deb-src http://source.example/debian bookworm main
deb https://flat.example/repo ./
"""
    stanzas = """\
Types: deb
# a comment
URIs: http://two.example/debian http://three.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Enabled: no
"""

    assert parse_apt_sources(text) == [
        "http://one.example/debian/dists/bookworm/InRelease",
        "https://flat.example/repo/./InRelease",
    ]
    assert parse_apt_sources(stanzas) == [
        "http://two.example/debian/dists/bookworm/InRelease",
        "http://three.example/debian/dists/bookworm/InRelease",
    ]


def test_python_indexes_come_from_environment_and_configuration(tmp_path: Path) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://a.example/simple\nextra-index-url =\n    https://b.example\n    file:///c\n"
    )

    assert parse_pip_config(config.read_text()) == ["https://a.example/simple", "https://b.example", "file:///c"]
    assert parse_pip_config("no section") == []
    found = find_python_indexes({"PIP_CONFIG_FILE": str(config), "UV_INDEX_URL": "https://uv.example/simple"})
    assert found[0] == "https://uv.example/simple"
    assert "https://b.example" in found


class _Mirror(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(int(self.path.rpartition("/")[2]))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing: the name of the argument is the parent's."""


@pytest.fixture
def mirror() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Mirror) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_mirror_that_answers_tells_the_time(mirror: str) -> None:
    for status in (200, 404):
        answer = ask(f"{mirror}/{status}", {})

        assert answer.error == ""
        assert answer.clock_s is not None


def test_mirror_that_fails_is_named_without_its_password(mirror: str, tmp_path: Path) -> None:
    assert ask(f"{mirror}/503", {}).error.startswith("answers 503")
    assert ask(f"file://{tmp_path}/none", {}).error == "no such directory"
    assert ask(f"file://{tmp_path}", {}).error == ""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (check,) = check_answers("Python index", [ask(f"http://127.0.0.1:{port}/simple", {})], "look")
    assert (check.status, check.fix) == ("warn", "look")
    assert "refused" in check.finding
    assert without_password("https://me:secret@a.example/simple") == "https://a.example/simple"


def test_mirrors_are_asked_through_the_proxy(mirror: str) -> None:
    proxies = proxies_of({"HTTP_PROXY": mirror, "NO_PROXY": "x"})

    assert proxies == {"http": mirror}
    assert ask("http://unknown.invalid/200", proxies).error == ""


@pytest.mark.parametrize(("clock_s", "status"), [(1_000.0, "ok"), (1_059.0, "ok"), (5_000.0, "warn"), (-90.0, "warn")])
def test_clock_is_compared_with_the_mirrors(clock_s: float, status: str) -> None:
    assert check_clock([Answer("a", "", clock_s), Answer("b", "down", None)], 1_000.0).status == status


def test_clock_is_not_judged_without_a_witness() -> None:
    assert check_clock([Answer("b", "down", None)], 1_000.0).status == "ok"
