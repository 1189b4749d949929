"""Every mutation, in the order of the list of faults."""

from __future__ import annotations

from tests.mutations.isolation import ISOLATION
from tests.mutations.limit_faults import LIMIT_FAULTS
from tests.mutations.machine_faults import MACHINE_FAULTS
from tests.mutations.mutation import Mutation
from tests.mutations.server_isolation import SERVER_ISOLATION
from tests.mutations.user_faults import USER_FAULTS

MUTATIONS: tuple[Mutation, ...] = (*USER_FAULTS, *LIMIT_FAULTS, *MACHINE_FAULTS, *ISOLATION, *SERVER_ISOLATION)
