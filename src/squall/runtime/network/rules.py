"""The nft table of one instance: what containers may reach, as text and in the kernel.

All of it sits on the machine's side of each veth pair, so nothing that runs inside can change it.
"""

from __future__ import annotations

import shutil
import subprocess

from squall.runtime.errors import FeatureMissing, RuntimeFailure
from squall.runtime.network.names import ANY_SLOT, Names
from squall.runtime.network.services import Redirect, Services
from squall.runtime.network.subnet import Subnet

NFT_TIMEOUT_S = 20.0

TEMPLATE = """\
add table inet {table}
delete table inet {table}
table inet {table} {{
    chain guard {{
        type filter hook prerouting priority raw; policy accept;
        iifname != "{slots}" accept
        meta nfproto ipv6 drop
        # A container speaks from its own address or not at all: an answer must leave by the same interface. The
        # rp_filter of the veth says the same, but tools that want asymmetric routes switch that off for all interfaces.
        ip saddr != {network} drop
        fib saddr . iif oif missing drop
        # route_localnet, which the redirects below need, would open all of 127.0.0.0/8.
        ip daddr 127.0.0.0/8 drop
    }}
    chain redirects {{
        type nat hook prerouting priority dstnat; policy accept;
{redirects}    }}
    chain disguises {{
        type nat hook input priority 100; policy accept;
{disguises}    }}
    chain to_machine {{
        type filter hook input priority filter; policy accept;
        iifname != "{slots}" accept
        ct state established,related accept
{accepts}        ip daddr {gateway} icmp type echo-request accept
        reject with icmpx admin-prohibited
    }}
    chain forwarded {{
        type filter hook forward priority filter; policy accept;
        iifname "{slots}" jump outbound
        oifname "{slots}" jump inbound
    }}
    chain outbound {{
        oifname "{any_slot}" reject with icmpx admin-prohibited
        # Somebody else's redirect of a port of this machine, a published container port for example.
        ct status dnat reject with icmpx admin-prohibited
{link_local}        ip daddr 169.254.0.0/16 reject with icmpx admin-prohibited
    }}
    chain inbound {{
        ct state established,related accept
        iifname "{any_slot}" reject with icmpx admin-prohibited
        drop
    }}
    chain outside {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {network} oifname != "{any_slot}" masquerade
    }}
}}
"""


def _redirect_line(redirect: Redirect, slots: str) -> str:
    return (
        f'        iifname "{slots}" ip daddr {redirect.address} {redirect.protocol} dport {redirect.port} '
        f"dnat ip to {redirect.target}:{redirect.port}\n"
    )


def _accept_line(redirect: Redirect) -> str:
    return (
        f"        ct status dnat ct original ip daddr {redirect.address} "
        f"meta l4proto {redirect.protocol} ct original proto-dst {redirect.port} accept\n"
    )


def _disguise_line(address: str, slots: str) -> str:
    # A program on loopback may serve loopback only (dnsmasq and proxies ask for the peer's address).
    return f'        iifname "{slots}" ct status dnat ct original ip daddr {address} snat ip to 127.0.0.1\n'


def render_rules(names: Names, subnet: Subnet, services: Services) -> str:
    """The whole table for `nft -f`: it replaces the one before in one transaction."""
    slots = f"{names.veth_prefix}*"
    on_loopback = dict.fromkeys(r.address for r in services.redirects if r.target.startswith("127."))
    # Some clouds answer DNS at the metadata address: its port 53 is open, the rest of it is not.
    link_local = [address for address in services.resolvers if address.startswith("169.254.")]
    return TEMPLATE.format(
        table=names.table,
        slots=slots,
        any_slot=ANY_SLOT,
        network=subnet.network,
        gateway=subnet.gateway,
        redirects="".join(_redirect_line(redirect, slots) for redirect in services.redirects),
        disguises="".join(_disguise_line(address, slots) for address in on_loopback),
        accepts="".join(_accept_line(redirect) for redirect in services.redirects),
        link_local="".join(
            f"        ip daddr {address} meta l4proto {{ tcp, udp }} th dport 53 accept\n" for address in link_local
        ),
    )


def run_tool(argv: list[str], text: str | None = None) -> str:
    """Run a firewall tool and return what it printed.

    Raises:
        FeatureMissing: it is not installed.
        RuntimeFailure: it failed; with its own words.
    """
    tool = shutil.which(argv[0], path="/usr/sbin:/sbin:/usr/bin:/bin")
    if tool is None:
        raise FeatureMissing(f"cannot set up container networks: {argv[0]} is missing; apt-get install nftables")
    try:
        done = subprocess.run(
            [tool, *argv[1:]], input=text, capture_output=True, text=True, timeout=NFT_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeFailure(f"cannot run {' '.join(argv)}: no answer in {NFT_TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        raise RuntimeFailure(f"cannot run {' '.join(argv)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def load_rules(text: str) -> None:
    """Put rules in force, all or none of them."""
    run_tool(["nft", "-f", "-"], text)


def has_rules(names: Names) -> bool:
    """Whether the instance's table is there; somebody's `flush ruleset` takes it along."""
    return f"table inet {names.table}\n" in run_tool(["nft", "list", "tables"])


def remove_rules(names: Names) -> None:
    """Remove the instance's table. Idempotent."""
    load_rules(f"add table inet {names.table}\ndelete table inet {names.table}\n")
