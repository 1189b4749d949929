"""Mutations of what keeps containers, accounts of the machine and pages in a browser from the server."""

from __future__ import annotations

from tests.mutations.mutation import Change, Mutation

E2E = "tests/e2e/test_isolation.py::"
NETWORK = "tests/kernel/test_network.py::"

SERVER_ISOLATION = (
    Mutation(
        "machine-ports",
        "cannot reach the server's ports",
        "containers may connect to the machine's ports",
        (
            Change(
                "src/squall/runtime/network/rules.py",
                "icmp type echo-request accept\n        reject with icmpx admin-prohibited\n",
                "icmp type echo-request accept\n        accept\n",
            ),
        ),
        {
            f"{E2E}test_container_cannot_reach_ports_of_the_machine_or_its_neighbour": "set(reached) - forged == set()",
            f"{NETWORK}test_container_does_not_reach_the_machine": "set(answers) <=",
        },
    ),
    Mutation(
        "metadata-address",
        "cannot reach the server's ports",
        "the cloud's metadata address is open",
        (
            Change(
                "src/squall/runtime/network/rules.py",
                "{link_local}        ip daddr 169.254.0.0/16 reject with icmpx admin-prohibited\n",
                "{link_local}",
            ),
        ),
        {f"{NETWORK}test_metadata_address_is_blocked_but_a_resolver_there_answers": "METADATA_ADDRESS, 80)"},
    ),
    Mutation(
        "container-token",
        "cannot use the server's socket",
        "any token opens a container's socket",
        (
            Change(
                "src/squall/agent/relay.py",
                "if not hmac.compare_digest(token_hash(hello.token), self._token_sha256):",
                "if not hmac.compare_digest(self._token_sha256, self._token_sha256):",
            ),
        ),
        {f"{E2E}test_containers_socket_refuses_what_is_not_its_own": "== {}"},
    ),
    Mutation(
        "container-connections",
        "cannot use the server's socket",
        "a container may have any number of connections",
        (
            Change(
                "src/squall/agent/relay.py",
                "        if len(self._connections) >= CONNECTIONS_MAX:\n",
                "        if len(self._connections) >= 100 * CONNECTIONS_MAX:\n",
            ),
        ),
        {f"{E2E}test_containers_socket_refuses_what_is_not_its_own": "0 < kept <= CONNECTIONS_MAX"},
    ),
    Mutation(
        "container-method",
        "cannot use the server's data",
        "a container may list apps",
        (
            Change(
                "src/squall/server/dispatch/client/callers.py",
                '    "Hello", "AppCreate",',
                '    "Hello", "AppList", "AppCreate",',
            ),
        ),
        {f"{E2E}test_container_cannot_use_other_apps_or_the_server": "protocol.items() if said not in"},
    ),
    Mutation(
        "container-app",
        "cannot use the server's data",
        "a container may look at other apps",
        (
            Change(
                "src/squall/server/dispatch/client/callers.py",
                "        if app.app_id != self.scope_app_id:\n            self.check_change(",
                "        if not app.app_id:\n            self.check_change(",
            ),
        ),
        {f"{E2E}test_container_cannot_use_other_apps_or_the_server": "call another app's function"},
    ),
    Mutation(
        "container-call",
        "cannot use the server's data",
        "a container may call functions of other apps",
        (
            Change(
                "src/squall/server/dispatch/services.py",
                "if self._scope_app_id and dispatcher.spec.app_id != self._scope_app_id:",
                "if self._scope_app_id and not dispatcher.spec.app_id:",
            ),
        ),
        {f"{E2E}test_container_cannot_use_other_apps_or_the_server": "call another app's function"},
    ),
    Mutation(
        "data-directory",
        "cannot read the server's data",
        "other accounts of the machine may use the server's socket",
        (
            Change(
                "src/squall/main/data_dir.py",
                "path.chmod(0o660 if self.has_group else 0o600)",
                "path.chmod(0o666)",
            ),
        ),
        {
            f"{E2E}test_other_accounts_of_the_machine_read_where_the_server_is_and_nothing_else": "connected == []",
        },
    ),
    Mutation(
        "http-host",
        "cannot use the server's ports",
        "the HTTP port answers under any name",
        (
            Change(
                "src/squall/server/api/guard.py",
                "        if len(hosts) != 1 or _name(hosts[0]) not in self._host_names:\n",
                "        if len(hosts) != 1:\n",
            ),
        ),
        {f"{E2E}test_page_in_a_browser_gets_nowhere[post-headers4-403]": "answer.status =="},
    ),
    Mutation(
        "http-token",
        "cannot use the server's ports",
        "the HTTP port answers without the token",
        (
            Change(
                "src/squall/server/api/guard.py",
                '        if kind.lower() != b"bearer" or',
                '        if kind.lower() == b"bearer" and',
            ),
        ),
        {f"{E2E}test_page_in_a_browser_gets_nowhere[post-headers0-401]": "answer.status =="},
    ),
)
