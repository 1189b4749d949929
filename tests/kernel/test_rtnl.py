"""Requests of the routing socket against the kernel, in a namespace that is thrown away."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.runtime.errors import RuntimeFailure
from squall.runtime.network.namespaces import (
    current_namespace,
    make_pin_directory,
    new_namespace,
    remove_pin_directory,
    unpin,
)
from squall.runtime.network.rtnl import (
    RoutingSocket,
    VethEnd,
    add_address,
    add_veth,
    delete_link,
    interface_index,
    set_up,
)

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]

HERE, THERE = VethEnd("one", "02:00:00:00:00:01", 1400), VethEnd("two", "02:00:00:00:00:02", 1400)


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[None]:
    """The thread is in an empty namespace."""
    pins, home = str(tmp_path / "pins"), current_namespace()
    make_pin_directory(pins)
    try:
        with new_namespace(f"{pins}/one", home):
            yield
        unpin(f"{pins}/one")
    finally:
        os.close(home)
        remove_pin_directory(pins)


def shown(*command: str) -> str:
    return subprocess.run(["ip", *command], capture_output=True, text=True, check=True).stdout


def test_first_failure_is_told_and_what_follows_is_done(inside: None) -> None:
    with RoutingSocket() as routing, pytest.raises(RuntimeFailure) as caught:
        routing.ask("set up", "a slot", set_up(77), add_address(88, "192.0.2.9"), set_up(1))

    assert str(caught.value).startswith("cannot set up a slot (its start): ")
    assert "ENODEV" in str(caught.value)
    assert "UP" in shown("link", "show", "dev", "lo").split(">")[0]


def test_socket_that_cannot_be_opened_is_our_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr("squall.runtime.network.rtnl.socket.socket", refuse)

    with pytest.raises(RuntimeFailure, match=r"cannot open a routing socket: .*EMFILE"):
        RoutingSocket()


def test_error_that_is_none_is_passed_over(inside: None) -> None:
    with RoutingSocket() as routing:
        routing.ask("remove", "nothing", delete_link("nothing"), ignored=(errno.ENODEV,))
        with pytest.raises(RuntimeFailure, match=r"cannot remove nothing \(its interface\): .*ENODEV"):
            routing.ask("remove", "nothing", delete_link("nothing"))


def test_pair_has_the_number_the_addresses_and_the_size_it_was_given(inside: None) -> None:
    namespace = current_namespace()
    try:
        with RoutingSocket() as routing:
            routing.ask("make", "a pair", add_veth(HERE, 7, THERE, namespace), add_address(7, "192.0.2.7"))
    finally:
        os.close(namespace)

    text = shown("addr", "show", "dev", "one")
    assert text.startswith("7: one@two: ")
    assert "mtu 1400" in text
    assert "link/ether 02:00:00:00:00:01" in text
    assert "inet 192.0.2.7/32" in text
    assert "02:00:00:00:00:02" in shown("link", "show", "dev", "two")
    assert interface_index("one") == 7
    with pytest.raises(RuntimeFailure, match="cannot find interface three"):
        interface_index("three")
