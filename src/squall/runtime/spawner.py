"""The spawner: the small process that makes containers and outlives the agent that asked for them.

    python -m squall.runtime.spawner --state DIR --instance NAME [--idle-s N]

Returns once it listens on DIR/spawner.sock; the spawner itself goes on in a session of its own. There is one per state
directory, held by a lock. It ends when asked to, at SIGTERM (both end its containers), or when nothing runs and no
agent has been there for N seconds.

One thread and one poll loop: it forks, and a fork of a process with threads may inherit a lock nobody will release.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import signal
import socket
import sys
import traceback
from functools import partial
from typing import Any

from squall.runtime import codec
from squall.runtime import syscalls as sc
from squall.runtime.cgroup import detect_cgroups
from squall.runtime.container import Outcome, Reply
from squall.runtime.errors import RuntimeFailure
from squall.runtime.launch import LaunchKit
from squall.runtime.layer_mounts import LayerMounts, make_image_namespace
from squall.runtime.peer import Peer
from squall.runtime.poll import Poller
from squall.runtime.programs import find_init
from squall.runtime.records import Records
from squall.runtime.registry import Registry
from squall.runtime.seccomp import build_filter, build_template_filter
from squall.runtime.spec import ContainerUsage, ExitStatus
from squall.runtime.sweep import lock, records_path, remove_parents, socket_path, sweep_locked
from squall.runtime.volumes import make_ground
from squall.runtime.wire import EXIT_DIED, EXIT_HELD, PROTOCOL_VERSION, failure_to_json

IDLE_CHECK_S = 1.0
ACCEPT_PAUSE_S = 1.0
BACKLOG = 16
PAUSE_PROGRAMS = ("/usr/bin/catatonit", "/usr/libexec/catatonit", "/usr/libexec/podman/catatonit")
_HELD = "held"


class Spawner:
    """Answers agents' requests by the registry of containers."""

    def __init__(self, state_dir: str, instance: str, kit: LaunchKit, idle_s: float, lock_fd: int) -> None:
        self._state_dir = state_dir
        self._instance = instance
        self._pid = os.getpid()
        self._idle_s = idle_s
        self._idle_checks = 0
        self._poller = Poller(private=(lock_fd,))
        self._peers: list[Peer] = []
        self._listener = _listen(state_dir)
        self._poller.private.add(self._listener.fileno())
        self._is_shutting_down = False
        records = Records(records_path(state_dir))
        self._tree = detect_cgroups()
        self._layer_mounts = LayerMounts(kit.images_fd)
        self._registry = Registry(instance, records, self._tree, kit, self._poller, self._layer_mounts, self._tell_exit)

    def run(self) -> None:
        """Serve until shut down or idle."""
        signal.signal(signal.SIGTERM, self._on_told_to_end)
        self._listen()
        self._poller.call_later(IDLE_CHECK_S, self._check_idle)
        self._poller.run()
        remove_parents(self._tree)
        os.unlink(socket_path(self._state_dir))

    def _on_told_to_end(self, *_: object) -> None:
        # Our children have this handler until they execute their programs. The loop sees to it at its next turn, which
        # the idle check makes come within a second.
        if os.getpid() == self._pid:
            self._poller.call_later(0.0, lambda: self._shut_down(lambda _: None))

    def _listen(self) -> None:
        self._poller.watch(self._listener.fileno(), self._accept)

    def _accept(self, _: int) -> None:
        try:
            connection, _address = self._listener.accept()
            self._peers.append(Peer(connection, self._poller, self._on_message, self._peers.remove))
        except OSError as error:
            print(f"cannot take a connection: {error}; trying again in {ACCEPT_PAUSE_S:g} s", file=sys.stderr)
            # Who was not taken waits there still, and would be found at once and for ever.
            self._poller.unwatch(self._listener.fileno())
            self._poller.call_later(ACCEPT_PAUSE_S, self._listen)

    def _check_idle(self) -> None:
        is_idle = not self._peers and self._registry.running_count() == 0
        self._idle_checks = self._idle_checks + 1 if is_idle else 0
        if self._idle_checks == 1:
            # Now, since who is idle may be killed and never missed.
            remove_parents(self._tree)
        if self._idle_checks * IDLE_CHECK_S >= self._idle_s:
            self._shut_down(lambda _: None)
        self._poller.call_later(IDLE_CHECK_S, self._check_idle)

    def _tell_exit(self, container_id: str, status: ExitStatus) -> None:
        for peer in list(self._peers):
            if peer.wants_events:
                peer.send({"event": "exit", "container_id": container_id, "exit_status": codec.to_json(status)})

    def _on_message(self, peer: Peer, message: dict[str, Any]) -> None:
        request_id = message.get("request_id")

        def answer(outcome: Reply | RuntimeFailure) -> None:
            if isinstance(outcome, RuntimeFailure):
                peer.send({"request_id": request_id, "error": failure_to_json(outcome)})
                return
            values = outcome.values
            if isinstance(values, (ExitStatus, ContainerUsage)):
                values = codec.to_json(values)
            peer.send({"request_id": request_id, "result": values}, outcome.descriptors)

        try:
            self._handle(peer, message, answer)
        except RuntimeFailure as failure:
            answer(failure)
        except Exception as error:  # noqa: BLE001  one bad request must not take every container along
            traceback.print_exc()
            answer(RuntimeFailure(f"cannot answer {message.get('method')}: unexpected {type(error).__name__}: {error}"))

    def _handle(self, peer: Peer, message: dict[str, Any], answer: Outcome) -> None:
        method, container_id = message["method"], message.get("container_id", "")
        registry = self._registry
        if method == "start":
            if self._is_shutting_down:
                raise RuntimeFailure("cannot start a container: the spawner is shutting down")
            registry.start(codec.container_spec(message["spec"]), answer)
        elif method == "prepare":
            if self._is_shutting_down:
                raise RuntimeFailure("cannot prepare a container: the spawner is shutting down")
            registry.forking.prepare(
                codec.container_spec(message["spec"]), is_parked=message["is_parked"], answer=answer
            )
        elif method == "begin":
            versions = [codec.volume(one) for one in message["volumes"]]
            registry.forking.begin(container_id, message["env"], answer, versions)
        elif method == "template_report":
            registry.template_report(container_id, answer)
        elif method == "save":
            registry.save(container_id, message["directory"], message["file_bytes_max"], answer)
        elif method == "make_network_namespaces":
            id_range = codec.id_range(message["id_range"])
            registry.make_network_namespaces(id_range, message["uid"], message["count"], answer)
        elif method == "kill":
            registry.kill(container_id, message["signal"], answer)
        elif method == "exec":
            registry.exec(container_id, codec.exec_spec(message["spec"]), answer)
        elif method == "wait_exec":
            registry.wait_exec(message["exec_id"], answer)
        elif method == "adopt":
            answer(registry.outputs(container_id))
        elif method == "list":
            answer(Reply([codec.status_to_json(status) for status in registry.statuses()]))
        elif method == "usage":
            answer(Reply(registry.usage(container_id)))
        elif method == "freeze":
            registry.freeze(container_id, answer)
        elif method == "thaw":
            registry.thaw(container_id)
            answer(Reply())
        elif method == "swap_volume":
            registry.swap_volume(container_id, codec.volume(message["volume"]), answer)
        elif method == "remove":
            registry.remove(container_id, answer)
        elif method == "drop_removed_layers":
            self._layer_mounts.drop_removed()
            answer(Reply())
        elif method == "shutdown":
            self._shut_down(answer)
        elif method == "hello":
            self._greet(peer, answer)
        else:
            raise RuntimeFailure(f"cannot answer {method!r}: this spawner does not know it; is it an older one?")

    def _greet(self, peer: Peer, answer: Outcome) -> None:
        answer(Reply({"version": PROTOCOL_VERSION, "instance": self._instance, "pid": os.getpid()}))
        peer.wants_events = True
        for status in self._registry.statuses():
            if status.exit_status is not None:
                ended = codec.to_json(status.exit_status)
                peer.send({"event": "exit", "container_id": status.container_id, "exit_status": ended})

    def _shut_down(self, answer: Outcome) -> None:
        self._is_shutting_down = True
        container_ids = self._registry.container_ids()
        left = set(container_ids)

        def on_removed(container_id: str, outcome: Reply | RuntimeFailure) -> None:
            left.discard(container_id)
            if isinstance(outcome, RuntimeFailure):
                print(outcome.message, file=sys.stderr)
            if not left:
                end()

        def end() -> None:
            answer(Reply())
            # After the answer has had a turn of the loop to leave.
            self._poller.call_later(0.01, stop)

        def stop() -> None:
            self._poller.is_stopped = True

        if not container_ids:
            end()
        for container_id in container_ids:
            self._registry.remove(container_id, partial(on_removed, container_id))


def _listen(state_dir: str) -> socket.socket:
    path = socket_path(state_dir)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(path)
    except OSError as error:
        raise RuntimeFailure(
            f"cannot listen at {path}: {error.strerror}; paths of sockets have at most 107 bytes"
        ) from error
    finally:
        os.umask(mask)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def _init_descriptor() -> int:
    """A sealed copy of tini in memory: /proc/1/exe then leads to no file of the machine."""
    return _in_memory(find_init())


def _pause_descriptor() -> int:
    """The same of the program that only waits and reaps; -1 where there is none."""
    return next((_in_memory(path) for path in PAUSE_PROGRAMS if os.path.exists(path)), -1)


def _in_memory(path: str) -> int:
    descriptor = os.memfd_create("init", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(path, "rb") as file:
        program = file.read()
    os.write(descriptor, program)
    os.fchmod(descriptor, 0o555)
    sc.seal(descriptor)
    return descriptor


def prepare_kit(state_dir: str) -> LaunchKit:
    """What containers stand on: where their layers are mounted, their init, their filter of system calls, the
    capabilities this kernel has.

    Raises:
        FeatureMissing: a package or a feature of the kernel is missing.
    """
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        last_capability = min(int(file.read()), 63)
    images_fd = make_image_namespace(f"{state_dir}/images")
    make_ground(images_fd)
    return LaunchKit(
        images_fd, _init_descriptor(), _pause_descriptor(), build_filter(), build_template_filter(), last_capability
    )


def _daemonize(state_dir: str, ready_fd: int) -> None:
    """Become a process that no terminal, session or parent of the caller's reaches; who waits has `ready_fd`."""
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    log = os.open(f"{state_dir}/spawner.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for descriptor, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, target)
    # Whatever the agent had open (its terminal, sockets, databases) must not live on in us.
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2 and descriptor != ready_fd:
            try:
                os.close(descriptor)
            except OSError:
                pass  # the one that listed the directory


def _serve(arguments: argparse.Namespace, ready_fd: int) -> int:
    """Become the daemon, take the lock, sweep, serve. Writes one line to `ready_fd`: empty, or what went wrong."""
    try:
        _daemonize(arguments.state, ready_fd)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.umask(0o022)
        held = lock(arguments.state)
        if held is None:
            os.write(ready_fd, f"{_HELD}\n".encode())
            return 1
        sc.prctl(sc.PR_SET_CHILD_SUBREAPER, 1, "child subreaper")
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        os.makedirs(records_path(arguments.state), mode=0o700, exist_ok=True)
        sweep_locked(arguments.state, arguments.instance)
        spawner = Spawner(arguments.state, arguments.instance, prepare_kit(arguments.state), arguments.idle_s, held)
    except RuntimeFailure as failure:
        os.write(ready_fd, f"{failure.message}\n".encode())
        return 1
    except Exception as error:  # noqa: BLE001  whoever starts us is to hear it: without a word means killed
        traceback.print_exc()
        os.write(ready_fd, f"unexpected {type(error).__name__}: {error}\n".encode())
        return 1
    os.write(ready_fd, b"\n")
    os.close(ready_fd)
    # Children share our pages until they write; the collector must not touch them all in each.
    gc.collect()
    gc.freeze()
    gc.disable()
    spawner.run()
    return 0


def main() -> int:
    """Start a spawner in the background; 0 once it listens, and see `wire` for the other ends."""
    parser = argparse.ArgumentParser(prog="squall.runtime.spawner", description=__doc__)
    parser.add_argument("--state", required=True, help="directory of the socket, lock and records")
    parser.add_argument("--instance", required=True, help="name of this installation: part of its cgroups' names")
    parser.add_argument("--idle-s", type=float, default=60.0, help="end after so long without container and agent")
    arguments = parser.parse_args()
    # Where whoever started us ignores it, the kernel reaps our children, and nobody hears how a container ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.makedirs(arguments.state, mode=0o700, exist_ok=True)
    arguments.state = os.path.realpath(arguments.state)
    ready_read, ready_write = os.pipe()
    if os.fork() == 0:
        code = 1
        try:
            code = _serve(arguments, ready_write)
        except BaseException:  # noqa: BLE001  the log is the only one left to tell
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(ready_write)
    with open(ready_read, encoding="utf-8") as ready:
        line = ready.readline()
    if line == "\n":
        return 0
    if line.strip() == _HELD:
        return EXIT_HELD
    print(line.strip() or f"the spawner ended at once; see {arguments.state}/spawner.log", file=sys.stderr)
    return 1 if line else EXIT_DIED


if __name__ == "__main__":
    sys.exit(main())
