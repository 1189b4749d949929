"""Reading a machine's settings, from trees that stand for machines."""

from __future__ import annotations

from pathlib import Path

from squall.agent.image.machine.settings import AptSource, read_machine_settings

DEB822 = """# A comment.
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
Enabled: no
URIs: http://mirror.example/off
Suites: bookworm
Components: main

Types: deb
URIs: https://mirror.example/inline
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----
"""


def make_machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_sources_of_both_formats_are_read(tmp_path: Path) -> None:
    root = make_machine(
        tmp_path,
        {
            "etc/os-release": 'ID=debian\nVERSION_CODENAME="bookworm"\n',
            "etc/apt/sources.list": (
                "# deb http://no.example/ x main\ndeb [signed-by=/k arch=amd64] http://a.example/ s main\n"
            ),
            "etc/apt/sources.list.d/debian.sources": DEB822,
            "etc/apt/sources.list.d/old.list.disabled": "deb http://no.example/ y main\n",
        },
    )

    settings = read_machine_settings({}, str(root))

    signed = (("signed-by", "/usr/share/keyrings/debian.gpg"),)
    assert settings.distribution == "debian"
    assert settings.codename == "bookworm"
    assert settings.apt.sources[:3] == (
        AptSource("http://a.example/", "s", ("main",), (("signed-by", "/k"), ("arch", "amd64"))),
        AptSource("http://mirror.example/debian", "bookworm", ("main", "contrib"), signed),
        AptSource("http://mirror.example/debian", "bookworm-updates", ("main", "contrib"), signed),
    )
    inline = settings.apt.sources[3]
    assert inline.inline_key.splitlines()[1:3] == ["", "abc"]
    assert inline.line("/key.asc") == "deb [signed-by=/key.asc] https://mirror.example/inline bookworm-security main"


def test_variables_win_over_pip_files_and_nearer_files_over_farther(tmp_path: Path) -> None:
    root = make_machine(
        tmp_path,
        {
            "etc/pip.conf": "[global]\nindex-url = https://far.example/simple\ntimeout = 3\n",
            "user/.config/pip/pip.conf": (
                "[global]\nindex-url = https://near.example/simple\n[install]\nno_index = true\n"
            ),
        },
    )

    pip = read_machine_settings(
        {"HOME": str(root / "user"), "PIP_FIND_LINKS": "/a /b", "PIP_DEFAULT_TIMEOUT": "9", "PIP_NO_INPUT": "1"},
        str(root),
    ).pip

    assert pip.first("index-url") == "https://near.example/simple"
    assert pip.get("find-links") == ("/a", "/b")
    assert pip.first("timeout") == "9"
    assert pip.first("no-index") == "true"
    assert "no-input" not in pip.values


def test_pip_files_are_ignored_when_pip_is_told_to(tmp_path: Path) -> None:
    root = make_machine(tmp_path, {"etc/pip.conf": "[global]\nindex-url = https://far.example/simple\n"})

    pip = read_machine_settings({"PIP_CONFIG_FILE": "/dev/null"}, str(root)).pip

    assert not pip.values


def test_machine_without_anything_gives_empty_settings(tmp_path: Path) -> None:
    settings = read_machine_settings({"HTTPS_PROXY": "http://p:1", "no_proxy": "x"}, str(tmp_path))

    assert settings.apt.sources == ()
    assert settings.ca_bundle == ""
    assert settings.proxies == {"https_proxy": "http://p:1", "no_proxy": "x"}
