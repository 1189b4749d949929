"""Mutations of tunnels, and of what the end of a connection to a port means."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

ENTRIES = "tests/server/ingress/test_tunnel.py::"
PORT = "tests/agent/test_port.py::"
WHO = "tests/server/dispatch/test_tunnels.py::"
ENTRY = "src/squall/server/ingress/tunnel.py"
TUNNELS = "src/squall/server/dispatch/web/tunnels.py"

TUNNEL_FAULTS = (
    Mutation(
        "tunnel-dead-server",
        "the server dies",
        "the kernel tells clients of tunnels an end",
        (Change(ENTRY, "        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)\n", ""),),
        {f"{ENTRIES}test_server_that_dies_resets_its_clients": "struct.pack"},
    ),
    Mutation(
        "tunnel-dead-container",
        "a program dies",
        "what it has said looks whole",
        (Change("src/squall/agent/port.py", "self._pid and _is_dying(self._pid)", "False"),),
        {f"{PORT}test_what_a_killed_program_has_said_is_not_all_of_it[dies]": "pytest.raises(PlatformError, match="},
    ),
    Mutation(
        "port-of-the-node",
        "a sandbox has no network",
        "what listens at that port of the node is reached in its place",
        (Change("src/squall/agent/port.py", "if not slot.address:", "if False:"),),
        {f"{PORT}test_sandbox_without_a_network_is_not_taken_for_this_machine": "isolation="},
    ),
    Mutation(
        "tunnel-one-way",
        "one side has ended",
        "the other one is cut off",
        (
            Change(
                ENTRY,
                "return_when=asyncio.FIRST_COMPLETED)\n",
                "return_when=asyncio.FIRST_COMPLETED)\n            return\n",
            ),
        ),
        {f"{ENTRIES}test_bytes_go_both_ways_and_each_way_has_an_end_of_its_own": "secondthe end"},
    ),
    Mutation(
        "tunnel-fast-program",
        "a client does not read",
        "all that the program says is kept for it",
        (Change(ENTRY, "                await self._writer.drain()\n", "                await asyncio.sleep(0)\n"),),
        {f"{ENTRIES}test_neither_side_is_read_further_than_the_other_takes": "32 * 2**20"},
    ),
    Mutation(
        "tunnel-any-port",
        "a container wants a port",
        "it is given one that is not for tunnels",
        (Change(ENTRY, "[wanted_port] if wanted_port in self._ports else []", "[wanted_port] if wanted_port else []"),),
        {f"{ENTRIES}test_port_that_is_wanted_is_given_if_it_is_free_and_of_the_range": "one.port in PORTS"},
    ),
    Mutation(
        "tunnel-anybodys",
        "another client of the container",
        "it closes tunnels that are not its own",
        (Change(TUNNELS, "tunnel is not None and tunnel.client is caller.client", "tunnel is not None"),),
        {f"{WHO}test_tunnel_is_its_clients": "is_open"},
    ),
    Mutation(
        "tunnel-outlives",
        "a container ends",
        "its tunnels stay",
        (
            Change(
                "src/squall/server/dispatch/client/clients.py",
                "        for forgotten in list(client.on_forgotten.values()):\n            forgotten()\n",
                "",
            ),
        ),
        {f"{WHO}test_it_ends_with_its_container": "is_open"},
    ),
    Mutation(
        "tunnel-in-the-clear",
        "a server that has TLS only",
        "a tunnel without is given",
        (Change(TUNNELS, "record.is_unencrypted and self.entries.why_no_plain", "False"),),
        {f"{WHO}test_what_cannot_be_is_refused": "unencrypted: with TLS only"},
    ),
    Mutation(
        "tunnel-of-a-blocked-network",
        "a container whose network is blocked",
        "it is reached, and answers, through a tunnel",
        (Change(TUNNELS, "if container.spec.is_network_blocked:", "if False:"),),
        {f"{WHO}test_container_whose_network_is_blocked_has_no_tunnels": "serve has block_network=True"},
    ),
)
