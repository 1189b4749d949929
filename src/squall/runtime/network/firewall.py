"""Other people's firewalls on the way of containers: found, passed where that is safe, else named with the fix.

In nftables a packet needs the consent of every table; ours cannot overrule a DROP elsewhere. So Docker (which sets the
policy of FORWARD to DROP), ufw and the like get an accept in the place they keep for it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from squall.runtime.errors import RuntimeFailure
from squall.runtime.network.names import Names
from squall.runtime.network.rules import run_tool

TOOLS = ("iptables-nft", "iptables-legacy")
LEGACY_TABLES = "/proc/net/ip_tables_names"


def _is_in_use(tool: str) -> bool:
    if tool != "iptables-legacy":
        return True
    # Asking iptables-legacy on a machine that does not use it would load its modules and create its tables.
    try:
        with open(LEGACY_TABLES, encoding="ascii") as file:
            return "filter" in file.read().split()
    except OSError:
        return False


def listing_of(tool: str) -> list[str]:
    """`iptables -S` of the filter table, or nothing where the tool is missing or not in use."""
    try:
        return run_tool([tool, "-w", "5", "-S"]).splitlines() if _is_in_use(tool) else []
    except RuntimeFailure:
        return []


def accept_rules(names: Names, listing: list[str]) -> list[list[str]]:
    """Arguments of the `-I` commands that let containers through this filter table; none where nothing is dropped."""
    slots = f"{names.veth_prefix}+"
    mark = ["-m", "comment", "--comment", names.comment, "-j", "ACCEPT"]
    answers = ["-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
    rules: list[list[str]] = []
    chains = {words[1] for words in map(str.split, listing) if len(words) > 1 and words[0] == "-N"}
    if "-P FORWARD DROP" in listing or "DOCKER-USER" in chains:
        chain = "DOCKER-USER" if "DOCKER-USER" in chains else "FORWARD"
        rules += [[chain, "-o", slots, *answers, *mark], [chain, "-i", slots, *mark]]
    if "-P INPUT DROP" in listing:
        # Redirected connections only; our own table has decided which.
        rules += [
            ["INPUT", "-i", slots, *answers, *mark],
            ["INPUT", "-i", slots, "-m", "conntrack", "--ctstate", "DNAT", *mark],
        ]
    return rules


def own_rules(names: Names, listing: list[str]) -> list[list[str]]:
    """Arguments of the `-D` commands that remove what we inserted."""
    parsed = (shlex.split(line) for line in listing)
    return [words[1:] for words in parsed if words and words[0] == "-A" and names.comment in words]


def open_firewall(names: Names) -> list[str]:
    """Insert accepts where a filter table would drop containers' packets; replaces those of an earlier run.

    Returns what was done, one line each.
    """
    close_firewall(names)
    done = []
    for tool in TOOLS:
        for rule in accept_rules(names, listing_of(tool)):
            run_tool([tool, "-w", "5", "-I", *rule])
            done.append(f"{tool} -I {' '.join(rule)}")
    return done


def close_firewall(names: Names) -> None:
    """Remove what `open_firewall` inserted. Idempotent."""
    for tool in TOOLS:
        for rule in own_rules(names, listing_of(tool)):
            run_tool([tool, "-w", "5", "-D", *rule])


def dropping_chains(ruleset: Mapping[str, Any]) -> list[str]:
    """Chains of `nft -j list chains` that drop forwarded packets by policy and that iptables does not know of."""
    chains = [item["chain"] for item in ruleset.get("nftables", []) if "chain" in item]
    return [
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in chains
        if chain.get("hook") == "forward"
        and chain.get("policy") == "drop"
        and chain["family"] in ("ip", "inet")
        # The compatibility table of iptables-nft, which `open_firewall` handles.
        and (chain["family"], chain["table"], chain["name"]) != ("ip", "filter", "FORWARD")
    ]


def firewall_findings(names: Names) -> list[str]:
    """Chains of other nft tables that drop what containers send, each with the commands that let it through."""
    slots = f"{names.veth_prefix}*"
    return [
        f"nft chain {chain} drops forwarded packets by policy; if containers cannot reach the outside: "
        f'nft insert rule {chain} iifname "{slots}" accept; '
        f'nft insert rule {chain} oifname "{slots}" ct state established,related accept'
        for chain in dropping_chains(json.loads(run_tool(["nft", "-j", "list", "chains"])))
    ]
