"""What network slots decide without a kernel: addresses, stand-ins for local services, rules, firewalls."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from squall.runtime.errors import RuntimeFailure
from squall.runtime.network.firewall import accept_rules, dropping_chains, own_rules
from squall.runtime.network.names import Names, SlotName, parse_slot_name
from squall.runtime.network.node_network import read_resolv_conf
from squall.runtime.network.rules import render_rules
from squall.runtime.network.services import Redirect, Services, find_resolvers, plan_services
from squall.runtime.network.subnet import FIRST_SLOT, RANGES, Subnet, choose_subnet

SUBNET = Subnet(IPv4Network("10.20.16.0/20"))
NAMES = Names("prod")


def plan(resolv_conf: str = "nameserver 192.0.2.53\n", **proxy_env: str) -> Services:
    own = ["127.0.0.1", "192.0.2.10"]
    return plan_services(SUBNET, resolv_conf=resolv_conf, proxy_env=proxy_env, own_addresses=own, hostname="box")


def test_names_fit_an_interface_and_differ_by_instance() -> None:
    assert len(NAMES.veth(0xFFE)) <= 15
    assert len(NAMES.bridge) <= 15
    assert NAMES.index_of(NAMES.veth(300)) == 300
    assert Names("other").index_of(NAMES.veth(300)) is None
    assert NAMES.index_of("eth0") is None
    assert NAMES.index_of(NAMES.bridge) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("16", SlotName(16, is_blocked=False, is_owned=False)),
        ("b0", SlotName(0, is_blocked=True, is_owned=False)),
        ("c4000", SlotName(4000, is_blocked=False, is_owned=True)),
        ("cb7", SlotName(7, is_blocked=True, is_owned=True)),
    ],
)
def test_name_of_a_slot_says_what_it_is(text: str, name: SlotName) -> None:
    assert str(name) == text
    assert parse_slot_name(text) == name


@pytest.mark.parametrize("text", ["", "c", "bc1", "16.new", "x1", "-1"])
def test_other_names_are_of_no_slot(text: str) -> None:
    with pytest.raises(ValueError, match="no name of a network slot"):
        parse_slot_name(text)


def test_subnet_is_the_same_again_for_an_instance() -> None:
    assert choose_subnet("prod", []) == choose_subnet("prod", [])
    assert choose_subnet("prod", []) != choose_subnet("other", [])


def test_subnet_keeps_off_every_route_but_the_default() -> None:
    free = choose_subnet("prod", [IPv4Network("0.0.0.0/0")])

    moved = choose_subnet("prod", [free.network])
    elsewhere = choose_subnet("prod", [IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/13")])

    assert free == choose_subnet("prod", [])
    assert not moved.network.overlaps(free.network)
    assert elsewhere.network.subnet_of(IPv4Network("172.24.0.0/13"))


def test_machine_that_routes_everything_is_told_what_to_do() -> None:
    with pytest.raises(RuntimeFailure, match="remove a route"):
        choose_subnet("prod", map(IPv4Network, RANGES))


def test_slots_and_services_have_addresses_of_their_own() -> None:
    services = {SUBNET.service(index) for index in range(FIRST_SLOT - 1)}
    slots = {SUBNET.slot(index) for index in SUBNET.slot_indexes}

    assert SUBNET.service(0) == SUBNET.gateway == "10.20.16.1"
    assert not services & slots
    assert "10.20.31.255" not in slots
    with pytest.raises(RuntimeFailure, match="at most 15"):
        SUBNET.service(FIRST_SLOT - 1)


def test_resolver_elsewhere_stays() -> None:
    services = plan("# generated\nsearch example.org\nnameserver 192.0.2.53\noptions ndots:2\n")

    assert services.resolv_conf == "search example.org\nnameserver 192.0.2.53\noptions ndots:2\n"
    assert services.resolvers == ("192.0.2.53",)
    assert services.redirects == ()
    assert services.findings == ()


def test_resolvers_are_found_among_other_lines() -> None:
    text = "# nameserver 192.0.2.1\nnameserver\nnameserver here\nnameserver ::1\n nameserver\t192.0.2.2\n"

    assert find_resolvers(text) == ["192.0.2.2"]


def test_local_resolvers_get_stand_ins() -> None:
    services = plan("nameserver 127.0.0.1\nnameserver 192.0.2.10\n")

    assert services.resolv_conf == "nameserver 10.20.16.1\nnameserver 10.20.16.2\n"
    assert services.redirects == (
        Redirect("10.20.16.1", "127.0.0.1", "udp", 53),
        Redirect("10.20.16.1", "127.0.0.1", "tcp", 53),
        Redirect("10.20.16.2", "192.0.2.10", "udp", 53),
        Redirect("10.20.16.2", "192.0.2.10", "tcp", 53),
    )


@pytest.mark.parametrize("text", ["", "nameserver ::1\n", "nameserver fe80::1%eth0\n"])
def test_machine_without_an_ipv4_resolver_is_a_finding(text: str) -> None:
    services = plan(text)

    assert services.resolv_conf == ""
    assert "no resolver" in services.findings[-1]


@pytest.mark.parametrize(
    ("value", "rewritten"),
    [
        ("http://127.0.0.1:3128", "http://10.20.16.1:3128"),
        ("http://user:p%40ss@localhost:3128/", "http://user:p%40ss@10.20.16.1:3128/"),
        ("http://box:8080", "http://10.20.16.1:8080"),
        ("192.0.2.10:3128", "10.20.16.1:3128"),
        ("socks5h://127.0.0.1", "socks5h://10.20.16.1:1080"),
        ("http://0.0.0.0:3128", "http://10.20.16.1:3128"),
        ("http://proxy.example.org:3128", "http://proxy.example.org:3128"),
        ("http://192.0.2.77:3128", "http://192.0.2.77:3128"),
    ],
)
def test_local_proxies_are_rewritten(value: str, rewritten: str) -> None:
    assert plan(HTTPS_PROXY=value).env == {"HTTPS_PROXY": rewritten}


def test_both_spellings_share_one_redirect_and_other_variables_are_left_out() -> None:
    services = plan(
        http_proxy="http://localhost:3128", HTTP_PROXY="http://localhost:3128", NO_PROXY="corp", HOME="/root"
    )

    assert services.env.keys() == {"http_proxy", "HTTP_PROXY", "NO_PROXY"}
    assert services.redirects == (Redirect("10.20.16.1", "127.0.0.1", "tcp", 3128),)


def test_proxy_on_ipv6_loopback_is_a_finding() -> None:
    services = plan(HTTP_PROXY="http://[::1]:3128")

    assert services.env == {}
    assert "let the proxy listen on IPv4" in services.findings[0]


def test_rules_let_through_the_named_ports_only() -> None:
    text = render_rules(NAMES, SUBNET, plan("nameserver 127.0.0.1\n", http_proxy="http://192.0.2.10:3128"))

    assert text.startswith(f"add table inet {NAMES.table}\ndelete table inet {NAMES.table}\n")
    assert "ip daddr 10.20.16.1 udp dport 53 dnat ip to 127.0.0.1:53" in text
    assert "ip daddr 10.20.16.2 tcp dport 3128 dnat ip to 192.0.2.10:3128" in text
    # Only what listens on loopback needs the peer to look local.
    assert text.count("snat ip to 127.0.0.1") == 1
    assert f'iifname != "{NAMES.veth_prefix}*" accept' in text
    assert text.count("{") == text.count("}")


def test_resolver_at_the_metadata_address_keeps_its_port() -> None:
    text = render_rules(NAMES, SUBNET, plan("nameserver 169.254.169.254\n"))

    accept, refuse = text.index("ip daddr 169.254.169.254"), text.index("ip daddr 169.254.0.0/16 reject")
    assert accept < refuse


def test_stub_resolver_is_replaced_by_what_stands_behind_it(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    real, stub = f"{tmp_path}/real", f"{tmp_path}/stub"
    for path, text in ((real, "nameserver 192.0.2.53\n"), (stub, "nameserver 127.0.0.53\noptions edns0\n")):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    monkeypatch.setattr("squall.runtime.network.node_network.RESOLV_CONF_BEHIND_STUB", real)

    assert read_resolv_conf(stub) == "nameserver 192.0.2.53\n"
    monkeypatch.setattr("squall.runtime.network.node_network.RESOLV_CONF_BEHIND_STUB", f"{tmp_path}/none")
    assert read_resolv_conf(stub).startswith("nameserver 127.0.0.53")
    assert read_resolv_conf(f"{tmp_path}/none") == ""


def test_open_firewall_needs_no_rules() -> None:
    assert accept_rules(NAMES, ["-P INPUT ACCEPT", "-P FORWARD ACCEPT", "-P OUTPUT ACCEPT"]) == []


def test_dropping_forward_policy_is_opened_both_ways() -> None:
    rules = accept_rules(NAMES, ["-P INPUT ACCEPT", "-P FORWARD DROP"])

    assert [rule[:3] for rule in rules] == [
        ["FORWARD", "-o", f"{NAMES.veth_prefix}+"],
        ["FORWARD", "-i", f"{NAMES.veth_prefix}+"],
    ]
    assert "RELATED,ESTABLISHED" in rules[0]
    assert all(NAMES.comment in rule for rule in rules)


def test_docker_keeps_a_place_for_others() -> None:
    rules = accept_rules(NAMES, ["-P FORWARD DROP", "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER"])

    assert {rule[0] for rule in rules} == {"DOCKER-USER"}


def test_dropping_input_policy_lets_redirected_connections_in() -> None:
    rules = accept_rules(NAMES, ["-P INPUT DROP", "-P FORWARD ACCEPT"])

    assert [rule[rule.index("--ctstate") + 1] for rule in rules] == ["RELATED,ESTABLISHED", "DNAT"]


def test_only_own_rules_are_taken_out_again() -> None:
    ours = f'-A FORWARD -i {NAMES.veth_prefix}+ -m comment --comment "{NAMES.comment}" -j ACCEPT'
    listing = ["-P FORWARD DROP", ours, "-A FORWARD -i eth0 -j ACCEPT", ours.replace(NAMES.tag, Names("other").tag)]

    assert own_rules(NAMES, listing) == [
        ["FORWARD", "-i", f"{NAMES.veth_prefix}+", "-m", "comment", "--comment", NAMES.comment, "-j", "ACCEPT"]
    ]


def test_dropping_chains_of_other_tables_are_found() -> None:
    def chain(table: str, name: str, hook: str, policy: str, family: str = "inet") -> dict[str, dict[str, str]]:
        return {"chain": {"family": family, "table": table, "name": name, "hook": hook, "policy": policy}}

    ruleset = {
        "nftables": [
            {"metainfo": {"version": "1.0.6"}},
            chain("filter", "forward", "forward", "drop"),
            chain("filter", "input", "input", "drop"),
            chain("open", "forward", "forward", "accept"),
            chain("filter", "FORWARD", "forward", "drop", family="ip"),
            {"chain": {"family": "inet", "table": "filter", "name": "helper"}},
        ]
    }

    assert dropping_chains(ruleset) == ["inet filter forward"]
