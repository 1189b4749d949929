"""A registry on loopback with images made by hand, and a gate before it that can hang or tear a download."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from squall.runtime.removal import remove_tree
from tests.agent.image.archives import archive, digest_of, directory, entry, symlink
from tests.ports import hold_port, port_of

PROGRAM = "/usr/bin/docker-registry"
USER, PASSWORD = "reader", "right-password"
# bcrypt of the password: the only kind this registry reads, and Python has none.
PASSWORDS = f"{USER}:$2b$05$abcdefghijklmnopqrstuuBO.kmgTJhdt40M5ZyHgFmcpBdUb9aS.\n"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_SKOPEO_S = 120
UNREACHABLE_SOURCES = b"Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm\nComponents: main\n"
# Says in its version what it could do before there was a container around it: nothing, and who it was.
SPY = b"""#!/usr/bin/python3.11 -ISB
import os, socket
done = ""
attempts = {
    "u": lambda: os.setuid(0),
    "w": lambda: open("/etc/written", "w"),
    "t": lambda: open("/tmp/written", "w").write("x"),
    "s": lambda: open("/etc/shadow"),
    "k": lambda: os.kill(1, 9),
    "m": lambda: os.mknod("/tmp/zero", 0o020666, os.makedev(1, 5)),
    "c": lambda: os.chroot("/etc"),
    "n": lambda: socket.create_connection(("127.0.0.1", PORT), timeout=2),
    "p": lambda: os.listdir("/proc")[0],
}
for name, attempt in attempts.items():
    try:
        attempt()
        done += name
    except (OSError, IndexError):
        continue
print(f"3.11.0+{done}{os.getuid()}")
"""
ENV = ["PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin", "GREETING=hello there", "LANG=C.UTF-8"]


def missing() -> str:
    """What this machine lacks for a registry, or nothing."""
    for program, package in (
        (PROGRAM, "docker-registry"),
        ("/usr/bin/skopeo", "skopeo"),
        ("/usr/bin/openssl", "openssl"),
    ):
        if not os.path.exists(program):
            return f"missing program: {program} (package {package})"
    return ""


@dataclass
class Registry:
    """One registry with its files below a folder, and a home directory with settings that lead to it."""

    folder: Path
    has_password: bool = False
    passwords: str = PASSWORDS
    """Whom it lets in."""
    has_tls: bool = False
    """With a certificate of an authority that no machine knows: `authority`."""
    port: int = 0
    """One of its own, which is kept for it as long as this is, unless another is given."""
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        if not self.port:
            held = hold_port()
            self.port = port_of(held)
            weakref.finalize(self, held.close)

    @property
    def place(self) -> str:
        """In front of the names of its images."""
        return f"127.0.0.1:{self.port}"

    @property
    def home(self) -> Path:
        """HOME of those who use it."""
        return self.folder / "home"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(exist_ok=True)
        http_settings: dict[str, object] = {"addr": self.place}
        if self.has_tls:
            self.home.mkdir(exist_ok=True)
            certificate, key = _make_certificate(self.folder)
            http_settings["tls"] = {"certificate": certificate, "key": key}
        else:
            self.trust(self.place)
        config: dict[str, object] = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "store")}},
            "http": http_settings,
        }
        if self.has_password:
            (self.folder / "passwords").write_text(self.passwords)
            config["auth"] = {"htpasswd": {"realm": "here", "path": str(self.folder / "passwords")}}
        (self.folder / "config.yml").write_text(json.dumps(config))
        self.process = subprocess.Popen(
            [PROGRAM, "serve", str(self.folder / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert self.process.poll() is None, f"the registry ended with {self.process.returncode}"
            time.sleep(0.05)
        raise AssertionError("the registry does not start")

    @property
    def authority(self) -> str:
        """The certificate of the authority that has signed its own."""
        return str(self.folder / "ca.pem")

    def __enter__(self) -> Registry:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill it; may be repeated."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(20)
            self.process = None

    def trust(self, *places: str) -> None:
        """Let these be asked without TLS, as an operator does it."""
        path = self.home / ".config/containers/registries.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            for place in places:
                file.write(f'[[registry]]\nlocation = "{place}"\ninsecure = true\n')

    def put_index(self, name: str, tag: str, *platforms: tuple[str, str]) -> None:
        """Store a manifest list that names images, not there, for these platforms."""
        kind = "application/vnd.docker.distribution.manifest.list.v2+json"
        manifest = self.ask("GET", f"/v2/{name}/manifests/{tag}", accept=OCI_MANIFEST)
        inner = {"mediaType": manifest[1], "size": len(manifest[0]), "digest": digest_of(manifest[0])}
        named = [{**inner, "platform": {"os": one[0], "architecture": one[1]}} for one in platforms]
        index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": named}, indent=1).encode()
        self.ask("PUT", f"/v2/{name}/manifests/list", index, kind)

    def ask(self, method: str, path: str, body: bytes = b"", kind: str = "", accept: str = "") -> tuple[bytes, str]:
        """A request as any client may make it: what comes, and its type."""
        headers = {**({"Content-Type": kind} if kind else {}), **({"Accept": accept} if accept else {})}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status < 300, content
            return content, answer.headers.get("Content-Type", "")

    def log_in(self, password: str) -> str:
        """A file of credentials; its path."""
        path = self.folder / "auth.json"
        auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
        path.write_text(json.dumps({"auths": {self.place: {"auth": auth}}}))
        return str(path)

    def push(
        self,
        name: str,
        archives: Sequence[Path],
        config: dict[str, object],
        *options: str,
        platform: tuple[str, str] = ("linux", ""),
    ) -> None:
        """Store an image of these layers, for this machine's processor if the platform names none."""
        folder = self.folder / "push"
        blobs = folder / "blobs/sha256"
        blobs.mkdir(parents=True)

        def put(content: bytes) -> dict[str, object]:
            (blobs / digest_of(content)[7:]).write_bytes(content)
            return {"digest": digest_of(content), "size": len(content)}

        layers = []
        for path in archives:
            digest = _file_digest(path)
            os.link(path, blobs / digest)
            media_type = "application/vnd.oci.image.layer.v1.tar"
            layers.append({"digest": f"sha256:{digest}", "size": path.stat().st_size, "mediaType": media_type})
        rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
        system, processor = platform
        described = {"architecture": processor or _architecture(), "os": system, "config": config, "rootfs": rootfs}
        raw = json.dumps(described).encode()
        kind = "application/vnd.oci.image.{}.v1+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": kind.format("manifest"),
            "config": {**put(raw), "mediaType": kind.format("config")},
            "layers": layers,
        }
        index = {
            "schemaVersion": 2,
            "manifests": [{**put(json.dumps(manifest).encode()), "mediaType": kind.format("manifest")}],
        }
        (folder / "index.json").write_text(json.dumps(index))
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        target = f"docker://{self.place}/{name}"
        command = ["skopeo", "copy", "--quiet", *options, f"oci:{folder}", target]
        subprocess.run(command, check=True, timeout=_SKOPEO_S, env={"PATH": "/usr/bin:/bin", "HOME": str(self.home)})
        remove_tree(str(folder))


def _make_certificate(folder: Path) -> tuple[str, str]:
    """A certificate for this machine and its key, signed by an authority made for it."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30, cwd=folder)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority of a test")
    openssl("req", *key[:-2], "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1")
    (folder / "server.cnf").write_text("subjectAltName = IP:127.0.0.1\n")
    by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "server.cnf")
    openssl("x509", "-req", "-in", "server.csr", *by, "-out", "server.pem")
    return str(folder / "server.pem"), str(folder / "server.key")


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _architecture() -> str:
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()


class Gate(ThreadingHTTPServer):
    """Passes everything on to a registry, but of a large blob only the first half; what then happens is chosen."""

    daemon_threads = True

    def __init__(self, registry: Registry, fault: str) -> None:
        """`fault`: `stall`, or `kill` for the registry's end in the middle."""
        super().__init__(("127.0.0.1", 0), _Passing)
        self.registry = registry
        self.fault = fault
        self.is_closing = threading.Event()
        self.has_torn = threading.Event()
        registry.trust(self.place)

    @property
    def place(self) -> str:
        """In front of the names of images."""
        return f"127.0.0.1:{self.server_port}"


class _Passing(BaseHTTPRequestHandler):
    server: Gate
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # the name is http.server's
        """Ask the registry for the same."""
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.registry.port, timeout=30)
        with contextlib.closing(upstream):
            self._pass_on(upstream)

    def _pass_on(self, upstream: http.client.HTTPConnection) -> None:
        try:
            upstream.request(self.command, self.path, headers={"Accept": self.headers.get("Accept", "*/*")})
            answer = upstream.getresponse()
        except OSError:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            self.send_header(name, value)
        self.end_headers()
        size = int(answer.headers.get("Content-Length") or 0) if self.command == "GET" else 0
        is_torn = size > 2**20  # not the manifest, nor the configuration
        left = size // 2 if is_torn else size
        with contextlib.suppress(OSError):
            while left and (chunk := answer.read(min(left, 65_536))):
                self.wfile.write(chunk)
                left -= len(chunk)
        if is_torn:
            self.close_connection = True
            self.server.has_torn.set()
            if self.server.fault == "stall":
                self.server.is_closing.wait(60)
            else:
                self.server.registry.stop()

    do_HEAD = do_GET  # noqa: N815  the name is http.server's

    def do_POST(self) -> None:  # the name is http.server's
        """Pass on what is pushed, but of something large only the first half."""
        size = int(self.headers.get("Content-Length") or -1)
        is_torn = self.headers.get("Transfer-Encoding") == "chunked" or size > 2**20
        if is_torn:
            self.rfile.read(2**20)
            self.close_connection = True
            self.server.has_torn.set()
            if self.server.fault == "stall":
                self.server.is_closing.wait(60)
            else:
                self.server.registry.stop()
            return
        body = self.rfile.read(max(size, 0))
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.registry.port, timeout=30)
        kept = {name: value for name, value in self.headers.items() if name in ("Content-Type", "Content-Range")}
        with contextlib.closing(upstream):
            # As asked of us: the registry sends whoever pushes on to a URL that has the name it was asked by.
            upstream.request(self.command, self.path, body, {**kept, "Host": self.server.place})
            answer = upstream.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.read())

    do_PUT = do_PATCH = do_POST  # noqa: N815  the names are http.server's

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: tests say what went wrong."""


@contextlib.contextmanager
def gate(registry: Registry, fault: str) -> Iterator[Gate]:
    """A gate that is open meanwhile."""
    with Gate(registry, fault) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.is_closing.set()
            server.shutdown()
            thread.join(20)


class SilentPlace:
    """Accepts connections and says nothing."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._accepted: list[socket.socket] = []
        self.place = f"127.0.0.1:{listener.getsockname()[1]}"

    def count(self) -> int:
        """How often somebody has connected."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._accepted.append(self._listener.accept()[0])
        return len(self._accepted)

    def close(self) -> None:
        for connection in self._accepted:
            connection.close()


@contextlib.contextmanager
def silent_place(registry: Registry) -> Iterator[SilentPlace]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        listener.setblocking(False)
        silent = SilentPlace(listener)
        registry.trust(silent.place)
        yield silent
        silent.close()


def stock(registry: Registry, rootfs: str, folder: Path) -> None:
    """Give it images: one as the official ones are, and bad ones."""
    below, above, bad = folder / "below.tar", folder / "above.tar", folder / "bad.tar"
    skipped = ("doc", "locale", "man")
    tar = ["tar", "--numeric-owner", "--format=pax", "--xattrs", "-C", rootfs, "-cf", str(below)]
    subprocess.run([*tar, *(f"--exclude=./usr/share/{name}/*" for name in skipped), "."], check=True, timeout=60)
    above.write_bytes(
        archive(
            symlink("usr/local/bin/python3", "/usr/bin/python3"),
            symlink("usr/local/bin/python", "python3"),
            entry("etc/apt/sources.list.d/debian.sources", UNREACHABLE_SOURCES),
            entry("etc/issue.net", b"from above", mode=0o640, uid=33, gid=33),
            entry("etc/.wh.issue"),
        )
    )
    bad.write_bytes(archive(entry("../../escaped", b"attack")))
    config: dict[str, object] = {"Env": ENV, "WorkingDir": "/srv/app", "User": "nobody", "Cmd": ["python3"]}
    registry.push("python:3.11-slim", [below, above], config)
    registry.push("bad:3.11", [below, bad], config)
    bad.write_bytes(archive(directory("etc"), entry("etc/os-release", b"VERSION_CODENAME=bookworm\n")))
    registry.push("nothing:3.11", [bad], {}, "--dest-compress-format=zstd")
    bad.write_bytes(archive(entry("usr/bin/python3", SPY.replace(b"PORT", str(registry.port).encode()), mode=0o755)))
    registry.push("spy:3.11", [below, bad], {})
    bad.write_bytes(archive(entry("usr/bin/python3", b"#!/bin/sh\nexit 3\n", mode=0o755)))
    registry.push("fake:3.11", [bad], {})
