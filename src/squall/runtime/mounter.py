"""Mounts volumes of forks that begin, and lets go of those of containers that are gone, in a process that is kept
waiting where there are such forks: to make one takes longer than the mounts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from squall.runtime import codec
from squall.runtime import syscalls as sc
from squall.runtime.aside import run_aside
from squall.runtime.container import Outcome, Reply, close_descriptors, receive
from squall.runtime.errors import RuntimeFailure, as_failure
from squall.runtime.launch import end_with, run_and_exit, tell
from squall.runtime.poll import Poller
from squall.runtime.spec import IdRange, Volume
from squall.runtime.volumes import attach_versions, drop_versions
from squall.runtime.wire import failure_from_json

_ASKED_BYTES_MAX = 1024 * 1024


class Mounter:
    """Mounts what is asked for, one after the other; what it has no time for, in a process of its own."""

    def __init__(self, poller: Poller, images_fd: int) -> None:
        self._poller = poller
        self._images_fd = images_fd
        self._channel: socket.socket | None = None
        self._pid = 0
        self._answer: Outcome | None = None

    def get_ready(self) -> None:
        """Somebody will ask."""
        if self._channel is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent_pid = os.getpid()
        pid, pidfd = sc.clone(0, signal.SIGCHLD)
        if pid == 0:
            run_and_exit(lambda: _serve(parent_pid, theirs, self._images_fd), theirs, code=0)
        theirs.close()
        os.close(pidfd)
        ours.setblocking(False)
        self._channel, self._pid = ours, pid
        self._poller.watch(ours.fileno(), lambda _: self._on_message())

    def attach(
        self, container_id: str, volumes: Sequence[Volume], id_range: IdRange, user_namespace_fd: int, answer: Outcome
    ) -> None:
        """See `attach_versions`; the answer comes when it is done.

        Raises:
            RuntimeFailure, OSError: nothing can be begun now.
        """
        given = {"volumes": [codec.to_json(one) for one in volumes], "id_range": asdict(id_range)}
        if self._is_sent({"container_id": container_id, "attach": given}, [user_namespace_fd], answer):
            return
        images_fd = self._images_fd
        run_aside(
            self._poller,
            lambda: attach_versions(images_fd, container_id, volumes, id_range, user_namespace_fd),
            answer,
        )

    def drop(self, container_id: str, answer: Outcome) -> None:
        """See `drop_versions`; the answer comes when it is done."""
        images_fd = self._images_fd

        def drop_aside() -> None:
            try:
                run_aside(self._poller, lambda: drop_versions(images_fd, container_id), answer)
            except (RuntimeFailure, OSError) as error:
                answer(as_failure(error))

        def on_done(outcome: Reply | RuntimeFailure) -> None:
            if isinstance(outcome, RuntimeFailure):
                # Nothing is in the way of trying it once more, whatever was.
                drop_aside()
            else:
                answer(outcome)

        if not self._is_sent({"container_id": container_id}, [], on_done):
            drop_aside()

    def _is_sent(self, asked: Mapping[str, Any], descriptors: Sequence[int], answer: Outcome) -> bool:
        if self._channel is None or self._answer is not None:
            return False
        try:
            socket.send_fds(self._channel, [json.dumps(asked).encode()], descriptors)
        except OSError:
            return False  # it has ended, which is about to be told, or that is more than a message takes
        self._answer = answer
        return True

    def _on_message(self) -> None:
        assert self._channel is not None, "it is watched"
        try:
            message = receive(self._channel)
        except BlockingIOError:
            return
        answer, self._answer = self._answer, None
        outcome: Reply | RuntimeFailure = Reply()
        if message is None:
            self._poller.unwatch(self._channel.fileno())
            self._channel.close()
            self._channel = None
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            outcome = RuntimeFailure("cannot mount volumes: the process that does it was killed")
        elif message:
            outcome = failure_from_json({"kind": message["kind"], "message": message["error"]})
        if answer is not None:
            answer(outcome)


def _serve(parent_pid: int, channel: socket.socket, images_fd: int) -> None:
    end_with(parent_pid)
    # It lives on: what it kept open of the spawner's would be open for as long, as the sockets of templates.
    kept = {0, 1, 2, channel.fileno(), images_fd}
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in kept:
            with contextlib.suppress(OSError):  # the one that listed the directory
                os.close(descriptor)
    own_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, _ASKED_BYTES_MAX, 1)
        if not data:
            return
        said: dict[str, str] = {}
        try:
            _do(json.loads(data), images_fd, descriptors)
        except (RuntimeFailure, OSError) as error:
            failure = as_failure(error)
            said = {"error": failure.message, "kind": type(failure).__name__}
        finally:
            sc.setns(own_mounts, sc.CLONE_NEWNS, "the machine's mount namespace")
            close_descriptors(*descriptors)
        tell(channel, said)


def _do(asked: Mapping[str, Any], images_fd: int, descriptors: Sequence[int]) -> None:
    container_id, given = asked["container_id"], asked.get("attach")
    if given is None:
        drop_versions(images_fd, container_id)
        return
    volumes = [codec.volume(one) for one in given["volumes"]]
    attach_versions(images_fd, container_id, volumes, codec.id_range(given["id_range"]), descriptors[0])
