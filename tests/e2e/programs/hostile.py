"""Hostile user code: functions that try everything and give back a table of what came of it.

Two containers of one function run at a time, a neighbour and an attacker: they share an id range and a user namespace,
so what keeps these two apart keeps any two apart. The attacks of the kernel suite come in as text.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import pickle
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import squall
from squall.protocol.codec import JsonCodec
from squall.protocol.frames import BODY_BYTES_MAX, Frame, FrameDecoder, encode
from squall.protocol.guest import ENV_CONTAINER_ID, ENV_TOKEN, SOCKET_PATH
from squall.protocol.ids import new_id
from squall.protocol.version import PROTOCOL_VERSION, VERSION
from squall.sdk import _container

app = squall.App("hostile")
victim = squall.App("victim")
Table = dict[str, str]

NEIGHBOUR_PORT = 9_000
NEIGHBOUR_FILE = "/tmp/of-the-neighbour"
HEARING_S = 0.3
FLOOD = 300


@victim.function()
def secret() -> str:
    return "of another app"


@app.function()
def answer(x: int) -> int:
    return x + 1


def outcome(attempt: Callable[..., object], *arguments: object) -> str:
    """`worked` and what came of it, or why not."""
    try:
        return f"worked: {attempt(*arguments)}"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    except Exception as error:  # noqa: BLE001 - whatever stopped it
        return f"{type(error).__name__}: {error}"


# ---- two containers of one function


@app.function(timeout=180)
def stage(role: str, facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One container; its first item is what it has to tell, the others what happened to it until then."""
    if role == "attacker":
        yield attacks(facts)
        return
    heard: list[str] = []
    Path(NEIGHBOUR_FILE).write_text("secret of the neighbour")
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        listener = socket.socket(socket.AF_INET, kind)
        listener.bind(("0.0.0.0", NEIGHBOUR_PORT))
        threading.Thread(target=hear, args=(listener, heard), daemon=True).start()
    with socket.create_connection(("127.0.0.1", NEIGHBOUR_PORT), 2):
        pass
    yield {
        "address": own_address(),
        "container_id": os.environ[ENV_CONTAINER_ID],
        "token": own_token(),
        "pid": os.getpid(),
    }
    # It stays until it is given up: an attacker in the same container would not be one.
    while True:
        time.sleep(HEARING_S)
        yield {"heard": heard, "at": time.monotonic()}


def hear(listener: socket.socket, heard: list[str]) -> None:
    if listener.type == socket.SOCK_STREAM:
        listener.listen()
    while True:
        if listener.type == socket.SOCK_STREAM:
            connection, peer = listener.accept()
            connection.close()
        else:
            peer = listener.recvfrom(100)[1]
        if peer[0] != "127.0.0.1":
            heard.append(str(peer))


def own_token() -> str:
    """The guest takes it out of `os.environ`; whoever wants it finds it all the same."""
    state = _container.current()
    assert state is not None
    return state.token


def first_token() -> bytes:
    """What is in the memory that this process began with: its own, or what its template had."""
    found: list[bytes] = re.findall(ENV_TOKEN.encode() + rb"=([^\0]+)", Path("/proc/self/environ").read_bytes())
    return found[0] if found else b""


def own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def attacks(facts: dict[str, Any]) -> dict[str, Table]:
    return {
        "descriptors": descriptors(),
        "files": files(facts),
        "network": network(facts),
        "protocol": protocol(facts),
        "socket": hostile_frames(facts),
        "kernel": kernel(facts),
    }


# ---- files, processes


def descriptors() -> Table:
    """What this process and pid 1 hold open."""
    found = {}
    for pid in ("self", "1"):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found[f"{pid}/{name}"] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def files(facts: dict[str, Any]) -> Table:
    table: Table = {}
    places = ["", "/proc/self/root", "/proc/1/root", "/proc/1/cwd" + "/.." * 30, "/run/squall/agent" + "/.." * 30]
    places += ["/dev/fd/0/../.." + "/.." * 30, "/proc/self/fd/1" + "/.." * 30, "/sys/.." + "/.." * 30]
    places += glob.glob("/proc/[0-9]*/root") + glob.glob("/proc/[0-9]*/fd/*")
    for wanted in facts["host_files"]:
        for place in places:
            table[f"open {place}{wanted}"] = outcome(os.open, place + wanted, os.O_RDONLY)
    for root in glob.glob("/proc/[0-9]*/root"):
        table[f"open {root}{NEIGHBOUR_FILE}"] = outcome(Path(root + NEIGHBOUR_FILE).read_text)
    own = {own_token().encode(), first_token()}
    for path in glob.glob("/proc/[0-9]*/environ"):
        with contextlib.suppress(OSError):
            tokens = set(re.findall(ENV_TOKEN.encode() + rb"=([^\0]+)", Path(path).read_bytes())) - own
            if tokens:
                table[f"a token in {path}"] = "worked"
    table["write beside the socket"] = outcome(lambda: Path("/run/squall/agent/mine").write_text("x"))
    table["replace the socket"] = outcome(lambda: os.rename(SOCKET_PATH, SOCKET_PATH + ".old"))
    table["unlink the socket"] = outcome(lambda: os.unlink(SOCKET_PATH))
    table["change mode of the socket"] = outcome(lambda: os.chmod(SOCKET_PATH, 0o600))
    table["write into the library"] = outcome(lambda: Path("/run/squall/lib/squall/__init__.py").write_text("x"))
    abstract = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if "@" in line]
    table["see abstract sockets of the machine"] = f"worked: {abstract}" if abstract else "none"
    return table


def kernel(facts: dict[str, Any]) -> Table:
    Path("/tmp/attacks.py").write_text(facts["attacks"])
    environ = {"PATH": os.environ["PATH"], "MARKER": facts["host_files"][0], "HOST_PID": str(facts["host_pid"])}
    ended = subprocess.run([sys.executable, "/tmp/attacks.py"], env=environ, capture_output=True, text=True, timeout=40)
    table: Table = json.loads(ended.stdout)
    return table


# ---- network


def network(facts: dict[str, Any]) -> Table:
    table: Table = {}
    for address in facts["machine"]:
        for port in (facts["server_port"], facts["open_port"]):
            where = (address, port)
            table[f"connect to the machine at {where}"] = outcome(connect, where)
    gateway = default_gateway()
    for port in (facts["server_port"], facts["open_port"], 22):
        table[f"connect to the gateway at port {port}"] = outcome(connect, (gateway, port))
    table["connect to the metadata address"] = outcome(lambda: connect(("169.254.169.254", 80)))
    neighbour = (facts["neighbour"]["address"], NEIGHBOUR_PORT)
    table["connect to the neighbour"] = outcome(lambda: connect(neighbour))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        table["send to the neighbour"] = outcome(lambda: plain.sendto(b"x", neighbour) and "sent")
    for source in (neighbour[0], gateway, "192.0.2.77"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forged:
            # IP_FREEBIND: an address that is not ours may be bound without any right.
            forged.setsockopt(socket.IPPROTO_IP, 15, 1)
            table[f"send to the neighbour as {source}"] = outcome(send_as, forged, source, neighbour)
    table["bind transparently"] = outcome(lambda: socket.socket(socket.AF_INET).setsockopt(socket.IPPROTO_IP, 19, 1))
    return table


def send_as(forged: socket.socket, source: str, target: tuple[str, int]) -> int:
    forged.bind((source, 0))
    return forged.sendto(b"x", target)


def connect(where: tuple[str, int]) -> str:
    with socket.create_connection(where, 1.5):
        return f"connected to {where}"


def default_gateway() -> str:
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == "00000000":
            return socket.inet_ntoa(struct.pack("<I", int(fields[2], 16)))
    raise OSError(errno.ENETUNREACH, "no default route")


# ---- the agent's socket


class Wire:
    """A connection to the agent, made by hand."""

    def __init__(self, hello: dict[str, Any] | None = None, *, role: str = "client") -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(3)
        self.socket.connect(SOCKET_PATH)
        self._decoder = FrameDecoder()
        self._frames: list[Frame] = []
        self._number = 0
        given = {
            "token": own_token(),
            "role": role,
            "container_id": os.environ[ENV_CONTAINER_ID],
            "version": VERSION,
            "protocol_version": PROTOCOL_VERSION,
            "client_id": new_id("cl"),
        }
        self.tell("GuestHello", {**given, **(hello or {})})

    def tell(self, method: str, record: dict[str, Any], body: bytes = b"") -> None:
        self.send({"k": "ev", "m": method, "p": record}, body)

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        self.socket.sendall(encode(Frame(json.dumps(header).encode(), body)))

    def read(self) -> dict[str, Any]:
        """The header of the next frame; an EOFError says that the other side has closed."""
        while not self._frames:
            data = self.socket.recv(65_536)
            if not data:
                raise EOFError("closed")
            self._frames += self._decoder.feed(data)
        header: dict[str, Any] = json.loads(self._frames.pop(0).header)
        return header

    def ask(self, method: str, record: dict[str, Any]) -> str:
        """The code of the refusal; raises nothing but what the connection does."""
        self._number += 1
        self.send({"k": "req", "i": self._number, "m": method, "p": record})
        while True:
            header = self.read()
            if header.get("i") == self._number:
                return str(header["p"]["code"]) if header["k"] == "err" else f"worked: {header.get('p')}"


def protocol(facts: dict[str, Any]) -> Table:
    """What the container's own token opens, beyond its own app."""
    wire = Wire()
    other, function_id, call_id = facts["victim_app"], facts["victim_function"], facts["victim_call"]
    neighbour_id = facts["neighbour"]["container_id"]
    mount = {"files": [{"path": "a", "sha256": "0" * 64, "size_bytes": 1, "mode": 0o644}]}
    opening = {"call_id": new_id("fc"), "function_id": function_id, "kind": "spawn"}
    inputs = {"call_id": opening["call_id"], "indexes": [0], "sizes": [0]}
    step = {"kind": "debian_slim", "python_version": "3.11"}
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "stop the server": ("ServerStop", {"is_forced": True}),
        "ask for the server's state": ("ServerStatus", {}),
        "list apps": ("AppList", {}),
        "look at another app": ("AppGet", {"app": other}),
        "look at another app by name": ("AppGet", {"app": "victim"}),
        "stop another app": ("AppStop", {"app": other}),
        "make an app": ("AppCreate", {"app_id": new_id("ap"), "name": "mine"}),
        "make a function": ("FunctionCreate", {"functions": []}),
        "look at another app's function": ("FunctionGet", {"function_id": function_id}),
        "find another app's function": ("FunctionGet", {"app": "victim", "name": "secret"}),
        "measure another app's function": ("FunctionStats", {"function_id": function_id}),
        "spawn another app's function": ("CallSpawn", {"call": opening, "inputs": inputs}),
        "get another app's output": ("CallGet", {"call_id": call_id}),
        "look at another app's call": ("CallInfo", {"call_id": call_id}),
        "cancel another app's call": ("CallCancel", {"call_id": call_id, "terminate_containers": True}),
        "list containers": ("ContainerList", {}),
        "stop a container": ("ContainerStop", {"container_id": neighbour_id}),
        "run a command in a container": ("ContainerExec", {"container_id": neighbour_id, "argv": ["true"]}),
        "read another app's logs": ("LogRead", {"app": other}),
        "build an image": ("ImageBuild", {"spec": {"steps": [step]}}),
        "lend a terminal": ("TerminalOffer", {"app_id": other}),
        "make a mount": ("MountCreate", {"manifest": mount}),
        "read a mount": ("MountGet", {"mount_id": "mo-" + "0" * 32}),
        "pose as a node": ("NodeHello", {"node_id": new_id("nd"), "version": VERSION, "protocol_version": 1}),
        "start a container": ("ContainerStart", {}),
        "no method at all": ("Nothing", {}),
    }
    table = {name: outcome_code(wire.ask, method, record) for name, (method, record) in asked.items()}
    table["call another app's function"] = outcome_code(call_through, wire, function_id)
    # Control: the same words do work where they may.
    table["own function"] = wire.ask("FunctionGet", {"function_id": facts["own_function"]})
    # Events that are not a container's: ignored, and the connection goes on.
    for method in ("ContainerHello", "NodeReport", "Logs", "ContainerExited"):
        wire.tell(method, {"container_id": neighbour_id, "role": "guest", "exit_code": 1})
    table["own function after forged events"] = wire.ask("FunctionGet", {"function_id": facts["own_function"]})
    return table


def outcome_code(attempt: Callable[..., str], *arguments: object) -> str:
    try:
        return attempt(*arguments)
    except (OSError, EOFError) as error:
        return f"{type(error).__name__}: {error}"


def call_through(wire: Wire, function_id: str) -> str:
    call_id = new_id("fc")
    wire.tell("CallOpen", {"call_id": call_id, "function_id": function_id, "kind": "remote"})
    # Arguments that the function would take: it must be the server that refuses, and not the function that fails.
    arguments = pickle.dumps(((), {}))
    wire.tell("PutInputs", {"call_id": call_id, "indexes": [0], "sizes": [len(arguments)]}, arguments)
    while True:
        header = wire.read()
        if header.get("m") == "PutOutputs" and header["p"]["call_id"] == call_id:
            return "failed" if any(header["p"]["statuses"]) else "worked"


# ---- the agent's socket, abused


def hostile_frames(facts: dict[str, Any]) -> Table:
    table: Table = {}
    hello = {"container_id": facts["neighbour"]["container_id"]}
    ended = facts["ended"]
    introductions: dict[str, tuple[dict[str, Any], str]] = {
        "wrong token": ({"token": "x" * 43}, "client"),
        "empty token": ({"token": ""}, "client"),
        "neighbour's id": (hello, "client"),
        "neighbour's token": ({"token": facts["neighbour"]["token"]}, "client"),
        "neighbour's id and token": ({**hello, "token": facts["neighbour"]["token"]}, "client"),
        "id and token of an ended container": (dict(ended), "client"),
        "a second guest": ({}, "guest"),
        "an unknown role": ({}, "agent"),
        "a number for a token": ({"token": 5}, "client"),
    }
    for name, (given, role) in introductions.items():
        table[name] = outcome(introduced, given, role)
    long = struct.pack("<II", 2**32 - 1, 2**32 - 1)
    first_frames = {
        "a frame over the limit": long + b"x" * 100,
        "a body over the limit": struct.pack("<II", 2, BODY_BYTES_MAX + 1) + b"{}",
        "no JSON": encode(Frame(b"\xff{[", b"")),
        "JSON that is no object": encode(Frame(b"[1]", b"")),
        "JSON of great depth": encode(Frame(b'{"k":' + b"[" * 60_000, b"")),
        "another method first": encode(Frame(JsonCodec().encode("ev", 0, "Heartbeat", None), b"")),
        "a request first": encode(Frame(b'{"k":"req","i":1,"m":"ServerStop"}', b"")),
        "an endless first frame": struct.pack("<II", 1_000_000, 0) + b" " * 200_000,
    }
    for name, data in first_frames.items():
        table[name] = outcome(answered, data)
    table["a flood of connections"] = flood()
    table["a wrong frame later"] = wrong_frame_later(facts)
    table["another call meanwhile"] = str(answer.remote(41))
    return table


def introduced(given: dict[str, Any], role: str) -> str:
    wire = Wire(given, role=role)
    return wire.ask("FunctionStats", {"function_id": "fu-x"})


def answered(data: bytes) -> str:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(5)
        raw.connect(SOCKET_PATH)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            raw.sendall(data)
            if not raw.recv(1):
                raise EOFError("closed")
            return "it answered"
        raise EOFError("closed")


def flood() -> str:
    """How many of many connections are kept open at a time."""
    made: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        for _ in range(FLOOD):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.settimeout(2)
            with contextlib.suppress(OSError):
                one.connect(SOCKET_PATH)
                made.append(one)
        time.sleep(0.5)
        kept = 0
        for one in made:
            one.setblocking(False)
            try:
                one.recv(1)
            except BlockingIOError:
                kept += 1
            except OSError:
                continue
    return str(kept)


def wrong_frame_later(facts: dict[str, Any]) -> str:
    wire = Wire()
    wire.ask("FunctionGet", {"function_id": facts["own_function"]})
    wire.socket.sendall(encode(Frame(b"{", b"")) + encode(Frame(b'{"k":"ev","m":"PutInputs","p":{"call_id":5}}', b"x")))
    again = wire.ask("FunctionGet", {"function_id": facts["own_function"]})
    wire.socket.sendall(struct.pack("<II", 2**31, 0))
    return ("goes on, " if again.startswith("worked") else f"{again}, ") + outcome(wire.read)


# ---- what a container can do


@app.function(timeout=60)
def abilities(facts: dict[str, Any]) -> Table:
    can: dict[str, Callable[[], object]] = {
        "write to /tmp": lambda: Path("/tmp/x").write_text("x"),
        "write to /dev/shm": lambda: Path("/dev/shm/x").write_text("x"),
        "write to its home": lambda: Path("~/x").expanduser().write_text("x"),
        "install into its root": lambda: Path("/usr/local/bin/x").write_text("x"),
        "give files away": lambda: os.chown("/tmp/x", 1_000, 1_000),
        "change modes": lambda: os.chmod("/usr/local/bin/x", 0o755),
        "start threads": run_threads,
        "start processes": lambda: subprocess.run(["sh", "-c", "exit 7"], check=False).returncode,
        "fork": fork_once,
        "see its own processes": lambda: int(Path("/proc/self/stat").read_text().split()[0]) == os.getpid(),
        "become another user": lambda: subprocess.run(["id", "-u"], user=1_000, capture_output=True).stdout.decode(),
        "listen on its loopback": lambda: listen_and_connect("127.0.0.1"),
        "listen on its IPv6 loopback": lambda: listen_and_connect("::1"),
        "listen on a low port": lambda: socket.create_server(("127.0.0.1", 80)).close(),
        "ping its loopback": ping,
        "install a package": lambda: install(facts["package"]),
        "use multiprocessing": use_multiprocessing,
    }
    table = {name: outcome(attempt) for name, attempt in can.items()}
    if facts["mirror"]:
        where = (facts["mirror"][0], facts["mirror"][1])
        table["look a name up"] = outcome(lambda: socket.getaddrinfo(where[0], where[1]) and "found")
        table["connect to the mirror"] = outcome(lambda: connect(where))
    return table


def run_threads() -> int:
    done: list[int] = []
    all_run = threading.Barrier(50, action=lambda: done.extend(range(50)))
    threads = [threading.Thread(target=all_run.wait, args=(10,)) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(done)


def fork_once() -> int:
    child = os.fork()
    if child == 0:
        os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def use_multiprocessing() -> list[int]:
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2])


def listen_and_connect(host: str) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener, socket.socket(family) as client:
        client.connect(listener.getsockname()[:2])
        return "connected"


def ping() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sender:
        sender.settimeout(2)
        sender.sendto(struct.pack("!BBHHH", 8, 0, 0, 0, 1) + b"ping", ("127.0.0.1", 0))
        return "answered" if sender.recv(100)[0] == 0 else "something else"


def install(source: str) -> str:
    """A package from files: nothing is fetched."""
    folder = Path("/tmp/package")
    folder.mkdir(exist_ok=True)
    (folder / "tiny_package.py").write_text(source)
    subprocess.run([sys.executable, "-m", "pip", "--version"], check=True, capture_output=True)
    subprocess.run([sys.executable, "-c", "import tiny_package"], check=True, cwd=folder)
    return "imported"


@app.function(block_network=True, timeout=30)
def cut_off(facts: dict[str, Any]) -> Table:
    names = sorted(os.path.basename(path) for path in glob.glob("/sys/class/net/*"))
    table = {
        "interfaces": ",".join(names),
        "listen on its loopback": outcome(lambda: listen_and_connect("127.0.0.1")),
        "call another function": str(answer.remote(1)),
    }
    places = [(address, facts["open_port"]) for address in facts["machine"]] + [("192.0.2.1", 80)]
    places += [(facts["mirror"][0], facts["mirror"][1])] if facts["mirror"] else []
    for where in places:
        table[f"connect to {where}"] = outcome(connect, where)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        table["send"] = outcome(lambda: plain.sendto(b"x", ("192.0.2.1", 9)))
    return table


# ---- user code that will not go


@app.function(timeout=20)
def stubborn(way: str) -> str:
    if way == "loses stdout":
        sys.stdout = sys.stderr = None
        return "answered"
    if way == "forges marks":
        os.write(1, b"\x1ein-forged:0\x1fforged line\n" + b"\x1e" * 500 + b"\n" + b"\x1e\x1f\n\x00\x1b]0;title\x07\n")
        return "answered"
    if way == "closes descriptors":
        os.closerange(0, 1_000)
        return "answered"
    if way == "daemonises":
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                if os.fork():
                    os._exit(0)
                for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
                time.sleep(600)
                os._exit(0)
        return "answered"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=time.sleep, args=(600,)).start()
    return "answered"


@app.local_entrypoint()
def tables(facts: str) -> None:
    known = json.loads(facts)
    with victim.run():
        secret.remote()
        known["victim_app"], known["victim_function"] = victim.app_id, secret.object_id
        known["own_function"] = answer.object_id
        known["victim_call"] = secret.spawn().object_id
        known["ended"] = ended_container()
        neighbour = stage.remote_gen("neighbour", {})
        known["neighbour"] = next(neighbour)
        found = next(stage.remote_gen("attacker", known))
        over_at = time.monotonic() + HEARING_S
        found["neighbour"] = next(item for item in neighbour if item["at"] > over_at)
        neighbour.close()
        found["can"] = abilities.remote(known)
        found["cut_off"] = cut_off.remote(known)
        found["victim"] = {"still there": secret.remote()}
    print("TABLES " + json.dumps(found))


@app.function(single_use_containers=True)
def credentials() -> dict[str, str]:
    return {"container_id": os.environ[ENV_CONTAINER_ID], "token": own_token()}


def ended_container() -> dict[str, str]:
    return credentials.remote()


@app.local_entrypoint()
def stay(way: str) -> None:
    try:
        print("said:", stubborn.remote(way))
    except squall.Error as error:
        print("failed:", type(error).__name__, error)
