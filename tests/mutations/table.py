"""Every mutation, in the order of the list of faults."""

from __future__ import annotations

from tests.mutations.agent_template_faults import AGENT_TEMPLATE_FAULTS
from tests.mutations.asset_faults import ASSET_FAULTS
from tests.mutations.attempt_faults import ATTEMPT_FAULTS
from tests.mutations.bucket_faults import BUCKET_FAULTS
from tests.mutations.class_faults import CLASS_FAULTS
from tests.mutations.cold_start_faults import COLD_START_FAULTS
from tests.mutations.connection_faults import CONNECTION_FAULTS
from tests.mutations.deploy_faults import DEPLOY_FAULTS
from tests.mutations.dict_queue_faults import DICT_QUEUE_FAULTS
from tests.mutations.durable_faults import DURABLE_FAULTS
from tests.mutations.flight_faults import FLIGHT_FAULTS
from tests.mutations.fork_volume_faults import FORK_VOLUME_FAULTS
from tests.mutations.guest_template_faults import GUEST_TEMPLATE_FAULTS
from tests.mutations.gvisor_faults import GVISOR_FAULTS
from tests.mutations.image_build_faults import IMAGE_BUILD_FAULTS
from tests.mutations.image_faults import IMAGE_FAULTS
from tests.mutations.image_layer_faults import IMAGE_LAYER_FAULTS
from tests.mutations.image_removal_faults import IMAGE_REMOVAL_FAULTS
from tests.mutations.image_store_faults import IMAGE_STORE_FAULTS
from tests.mutations.image_template_faults import IMAGE_TEMPLATE_FAULTS
from tests.mutations.isolation import ISOLATION
from tests.mutations.limit_faults import LIMIT_FAULTS
from tests.mutations.machine_faults import MACHINE_FAULTS
from tests.mutations.mutation import Mutation
from tests.mutations.scaling_faults import SCALING_FAULTS
from tests.mutations.schedule_faults import SCHEDULE_FAULTS
from tests.mutations.secret_faults import SECRET_FAULTS
from tests.mutations.server_isolation import SERVER_ISOLATION
from tests.mutations.server_template_faults import SERVER_TEMPLATE_FAULTS
from tests.mutations.slot_faults import SLOT_FAULTS
from tests.mutations.spawner_faults import SPAWNER_FAULTS
from tests.mutations.stored_faults import STORED_FAULTS
from tests.mutations.template_faults import TEMPLATE_FAULTS
from tests.mutations.together_faults import TOGETHER_FAULTS
from tests.mutations.tunnel_faults import TUNNEL_FAULTS
from tests.mutations.user_faults import USER_FAULTS
from tests.mutations.volume_build_faults import VOLUME_BUILD_FAULTS
from tests.mutations.volume_client_faults import VOLUME_CLIENT_FAULTS
from tests.mutations.volume_kept_faults import VOLUME_KEPT_FAULTS
from tests.mutations.volume_mount_faults import VOLUME_MOUNT_FAULTS
from tests.mutations.web_access_faults import WEB_ACCESS_FAULTS
from tests.mutations.web_client_faults import WEB_CLIENT_FAULTS
from tests.mutations.web_server_faults import WEB_SERVER_FAULTS

MUTATIONS: tuple[Mutation, ...] = (
    *USER_FAULTS,
    *ATTEMPT_FAULTS,
    *LIMIT_FAULTS,
    *MACHINE_FAULTS,
    *IMAGE_FAULTS,
    *IMAGE_BUILD_FAULTS,
    *IMAGE_LAYER_FAULTS,
    *IMAGE_REMOVAL_FAULTS,
    *IMAGE_STORE_FAULTS,
    *CLASS_FAULTS,
    *SCHEDULE_FAULTS,
    *DURABLE_FAULTS,
    *FLIGHT_FAULTS,
    *COLD_START_FAULTS,
    *STORED_FAULTS,
    *SCALING_FAULTS,
    *AGENT_TEMPLATE_FAULTS,
    *IMAGE_TEMPLATE_FAULTS,
    *SERVER_TEMPLATE_FAULTS,
    *DEPLOY_FAULTS,
    *SECRET_FAULTS,
    *DICT_QUEUE_FAULTS,
    *ISOLATION,
    *SERVER_ISOLATION,
    *TEMPLATE_FAULTS,
    *SLOT_FAULTS,
    *SPAWNER_FAULTS,
    *GVISOR_FAULTS,
    *GUEST_TEMPLATE_FAULTS,
    *TOGETHER_FAULTS,
    *VOLUME_CLIENT_FAULTS,
    *VOLUME_KEPT_FAULTS,
    *VOLUME_BUILD_FAULTS,
    *VOLUME_MOUNT_FAULTS,
    *FORK_VOLUME_FAULTS,
    *ASSET_FAULTS,
    *BUCKET_FAULTS,
    *TUNNEL_FAULTS,
    *WEB_ACCESS_FAULTS,
    *WEB_CLIENT_FAULTS,
    *CONNECTION_FAULTS,
    *WEB_SERVER_FAULTS,
)
