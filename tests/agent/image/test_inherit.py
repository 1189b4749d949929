"""What builds inherit, written into directories of the test's own."""

from __future__ import annotations

from pathlib import Path

from squall.agent.image.inherit import BUILD_DIR, Inherited, inherit, local_folders
from squall.agent.image.machine.settings import AptSettings, AptSource, MachineSettings, PipSettings


def make_inherited(tmp_path: Path, settings: MachineSettings, *sources: AptSource) -> tuple[Inherited, Path]:
    directory = tmp_path / "inside"
    directory.mkdir()
    return inherit(settings, sources, directory, uv_path="/x/uv"), directory


def test_index_in_a_folder_is_mounted_with_the_files_beside_it(tmp_path: Path) -> None:
    for name in ("pypi/simple", "pypi/files", "flat", "wheels", "mirror"):
        (tmp_path / name).mkdir(parents=True)
    pip = PipSettings(
        {
            "index-url": ("https://index.example/simple",),
            "extra-index-url": (
                f"file://{tmp_path}/pypi/simple",
                f"file://{tmp_path}/flat/",
                "file:///usr",
                "file:///absent",
            ),
            "find-links": (str(tmp_path / "wheels"), f"file://{tmp_path}/pypi/files"),
        }
    )

    folders = local_folders(MachineSettings(pip=pip), [AptSource(f"file:{tmp_path}/mirror", "x", ("main",))])

    assert folders == tuple(f"{tmp_path}/{name}" for name in ("flat", "mirror", "pypi", "wheels"))


def test_pip_settings_reach_uv_and_pip(tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("six<2\n")
    pip = PipSettings(
        {
            "index-url": ("https://a.example/simple",),
            "extra-index-url": ("https://b.example", "https://c.example"),
            "find-links": ("/wheels",),
            "constraint": (str(constraints),),
            "trusted-host": ("a.example",),
            "timeout": ("7",),
        }
    )

    inherited, directory = make_inherited(tmp_path, MachineSettings(pip=pip))

    assert inherited.env["UV_DEFAULT_INDEX"] == inherited.env["PIP_INDEX_URL"] == "https://a.example/simple"
    assert inherited.env["UV_EXTRA_INDEX_URL"] == "https://b.example https://c.example"
    assert inherited.env["UV_FIND_LINKS"] == "file:///wheels"
    assert inherited.env["UV_INSECURE_HOST"] == "a.example"
    assert inherited.env["UV_HTTP_TIMEOUT"] == "7"
    assert inherited.env["UV_CONSTRAINT"] == f"{BUILD_DIR}/constraint-0.txt"
    assert (directory / "constraint-0.txt").read_text() == "six<2\n"
    assert "UV_NO_INDEX" not in inherited.env


def test_apt_gets_sources_keys_options_and_certificates_of_the_machine(tmp_path: Path) -> None:
    key, bundle, client_key = tmp_path / "keys.gpg", tmp_path / "ca.pem", tmp_path / "client.pem"
    for path in (key, bundle, client_key):
        path.write_text(path.name)
    settings = MachineSettings(
        ca_bundle=str(bundle),
        apt=AptSettings(
            options=(("Acquire::http::Proxy", "http://p:1"), ("Acquire::https::SslKey", str(client_key))),
            credentials="machine m login l password p",
        ),
    )
    source = AptSource("http://mirror.example", "bookworm", ("main",), (("signed-by", str(key)),))

    inherited, directory = make_inherited(tmp_path, settings, source)

    conf = (directory / "apt/apt.conf").read_text()
    inside_name = str(key).strip("/").replace("/", "-")
    assert inherited.env["APT_CONFIG"] == f"{BUILD_DIR}/apt/apt.conf"
    assert 'Acquire::http::Proxy "http://p:1";' in conf
    assert f'Acquire::https::CAInfo "{BUILD_DIR}/ca.crt";' in conf
    assert f'Acquire::https::SslKey "{BUILD_DIR}/apt/keys/' in conf
    assert (directory / "apt/keys" / inside_name).read_text() == "keys.gpg"
    assert (directory / "apt/sources.list").read_text() == (
        f"deb [signed-by={BUILD_DIR}/apt/keys/{inside_name}] http://mirror.example bookworm main\n"
    )
    assert (directory / "apt/auth.conf").stat().st_mode & 0o777 == 0o600


def test_only_the_build_directory_and_local_folders_are_mount_points(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    pip = PipSettings({"find-links": (str(tmp_path / "wheels"),)})

    inherited, _ = make_inherited(tmp_path, MachineSettings(pip=pip))

    assert inherited.mount_points == (BUILD_DIR, str(tmp_path / "wheels"))
    assert {bind.target for bind in inherited.binds if not bind.is_read_only} == {BUILD_DIR}
