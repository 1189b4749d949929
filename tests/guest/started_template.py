"""A template with its agent, and what is asked of its forks."""

from __future__ import annotations

import pickle
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from squall.protocol.call import SUCCEEDED, InputBatch, OutputBatch, decode_failure
from squall.protocol.function import BY_FILE, Definition
from squall.protocol.guest import ROLE_GUEST, ROLE_TEMPLATE, Boot, GuestHello, GuestStop
from tests.guest.agent_double import AgentDouble
from tests.guest.spawner_double import TEMPLATE, Fork, TemplateProcess

CALL = "fc-0123456789ABCDEFGHabcd"
ENVIRONMENT = {"REMOVED": "1", "CHANGED": "1", "ONE": "of the template"}


class StartedTemplate:
    """A template with its agent, and what is asked of its forks."""

    def __init__(
        self,
        directory: Path,
        python: str,
        stage: str,
        code: str,
        more: Mapping[str, str],
        env: Mapping[str, str] = ENVIRONMENT,
    ) -> None:
        """`more` are further modules of the user, by name."""
        for folder in ("code", "agent"):
            (directory / folder).mkdir()
        for name, text in {"user_code": code, **more}.items():
            (directory / "code" / f"{name}.py").write_text(text)
        self.agent = AgentDouble(directory / "agent/agent.sock")
        paths = (sysconfig.get_path("purelib"),) if python == sys.executable else ()
        self.template = TemplateProcess(directory, python, stage, env, paths)
        self.forks: list[Fork] = []
        self.definition = Definition(BY_FILE, "user_code", "")
        self._functions: dict[str, str] = {}

    def boot(
        self,
        qualname: str,
        *,
        is_class: bool = False,
        is_async: bool = False,
        functions: Mapping[str, str] | None = None,
    ) -> None:
        """Tell the template what to load, and the ids of the app's `functions`."""
        definition = Definition(BY_FILE, "user_code", qualname, is_class=is_class, is_async=is_async)
        self.boot_with(definition, functions)

    def boot_with(self, definition: Definition, functions: Mapping[str, str] | None = None) -> None:
        """The same, however it gets hold of the function."""
        self.definition = definition
        self._functions = dict(functions or {})
        hello, _ = self.agent.expect("GuestHello", GuestHello)
        assert (hello.role, hello.container_id) == (ROLE_TEMPLATE, TEMPLATE)
        self.say_boot(TEMPLATE)

    def say_boot(self, container_id: str) -> None:
        """Answer a greeting."""
        name = self.definition.qualname
        boot = Boot(container_id, "ap-1", "templates", "fu-1", name, self.definition, self._functions)
        self.agent.say("Boot", boot)

    def ready(self, qualname: str, *, is_class: bool = False, is_async: bool = False) -> dict[str, Any]:
        """The same, and wait until it can be forked; what it says of itself then."""
        self.boot(qualname, is_class=is_class, is_async=is_async)
        said = self.template.report()
        assert "ready" in said, said
        report: dict[str, Any] = said["ready"]
        return report

    def fork(self, container_id: str = "ct-fork", *, joining: Mapping[str, Any] | None = None, **env: str) -> Fork:
        """A fork that serves."""
        fork = self.template.fork(joining).joined()
        self.forks.append(fork)
        fork.begin(container_id, **env)
        hello, _ = self.agent.expect("GuestHello", GuestHello)
        assert (hello.role, hello.container_id, hello.token) == (ROLE_GUEST, container_id, "secret")
        self.say_boot(container_id)
        return fork

    def call(self, *args: object) -> Any:
        """What the last fork returns."""
        value = pickle.dumps((args, {}), 4)
        self.agent.say("Inputs", InputBatch(CALL, (0,), (len(value),), (0,), method="said"), value)
        outputs, body = self.agent.expect("Outputs", OutputBatch)
        assert outputs.statuses == (SUCCEEDED,), decode_failure(body)[0]
        return pickle.loads(body)

    def stop(self, fork: Fork) -> tuple[int, str]:
        """Exit code of a fork, and what it has printed."""
        self.agent.say("GuestStop", GuestStop(5.0))
        out, err = fork.communicate()
        assert fork.returncode is not None
        return fork.returncode, (out + err).decode()

    def close(self) -> None:
        """Leave nothing."""
        for fork in self.forks:
            fork.close()
        self.template.close()
        self.agent.close()


Start = Callable[..., StartedTemplate]
