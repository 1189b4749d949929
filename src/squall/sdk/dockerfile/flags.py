"""Flags of instructions, checked against those there are; and the nearest name to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable

from squall.sdk.dockerfile.error import shown
from squall.sdk.dockerfile.lines import Written

_TRUE, _FALSE = ("true", "1"), ("false", "0")


class Flags:
    """The flags of one instruction.

    Raises:
        DockerfileError: one that there is not, is there twice, or lacks its value.
    """

    def __init__(
        self, written: Written, values: Iterable[str] = (), switches: Iterable[str] = (), lists: Iterable[str] = ()
    ) -> None:
        self._values: dict[str, list[str]] = {}
        self._switches: dict[str, bool] = {}
        values, switches, lists = tuple(values), tuple(switches), tuple(lists)
        for name, value in written.flags:
            if name in switches:
                self._switches[name] = truth(written, f"--{name}", value)
                continue
            if name not in (*values, *lists):
                message = f"{written.keyword} has no flag --{shown(name, 40)}"
                raise written.line.error(message + nearest(name, (*values, *switches, *lists), "--"))
            if not value:
                raise written.line.error(f"--{name} needs a value: --{name}=…")
            if name in self._values and name not in lists:
                raise written.line.error(f"--{name} is there twice")
            self._values.setdefault(name, []).append(value)

    def value(self, name: str) -> str:
        """The value of a flag; empty without it."""
        return self._values.get(name, [""])[0]

    def all(self, name: str) -> tuple[str, ...]:
        """The values of a flag that may be repeated."""
        return tuple(self._values.get(name, ()))

    def switch(self, name: str) -> bool | None:
        """Whether a flag is set, or unset by `=false`; None without it."""
        return self._switches.get(name)


def truth(written: Written, name: str, value: str | None) -> bool:
    """What the value of a switch says; one without a value is on."""
    if value is None or value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise written.line.error(f"{name} is true or false, not {shown(value, 40)!r}")


def nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """`; did you mean X?` for a misspelt name, or the names there are when none is near."""
    import difflib  # cold start: only for what is misspelt

    known = sorted(names)
    # Of a very long word the comparison would take long, and nothing is like it.
    found = difflib.get_close_matches(name[:40], known, n=1, cutoff=0.6)
    if found:
        return f"; did you mean {prefix}{found[0]}?"
    return f"; there are {', '.join(prefix + one for one in known)}" if known else "; it has none"
