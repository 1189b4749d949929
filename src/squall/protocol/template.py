"""Templates as users see them, and as the server asks its nodes about them.

A template is of one node, function and content. One that was dropped is gone; one that is unfit is remembered for a
while, with its cause, so that its function's containers start plainly.
"""

from __future__ import annotations

from squall.protocol.records import field, record, replace

IMAGE, FUNCTION = "image", "function"
"""What is loaded in it: the guest, or the user's function as well."""

MAKING = "making"
READY = "ready"
UNFIT = "unfit"
SAVED = "saved"
"""It is on its node's disk, and will be brought back when its function wants it: after a restart of the machine."""
DROPPED = "dropped"
"""It is forked no more, and ends when the clones it has do."""

NODE_TEMPLATES_MAX = 1_000
"""Of one answer of a node: those used last, where it has more."""


@record
class NodeTemplate:
    """A template as its node knows it."""

    template_id: str
    app_id: str
    function_id: str
    kind: str
    """`image` or `function`."""
    state: str
    """`making`, `ready`, `unfit`, `saved` or `dropped`."""
    cause: str = ""
    """Why it is unfit or dropped, in words for the user."""
    memory_mib: int = 0
    """What it occupies, with what is made ahead of it; also after it was dropped, as long as clones hold that."""
    shared_mib: int = 0
    """Of it, what clones that run hold, too: dropping it does not free that before they end."""
    clone_count: int = 0
    """Containers that run and are forks of it."""
    parked_count: int = 0
    cell_count: int = 0
    made_at: float = 0.0
    """Seconds since 1970, as all times here."""
    used_at: float = 0.0
    """When a container was last forked from it; `made_at` before the first."""
    disk_mib: int = 0
    """What it takes on the disk, from where it comes back after a restart of the machine; 0 where it is not there."""
    disk_cause: str = ""
    """Why it could not be put there, or not brought back."""
    is_brought_back: bool = False
    """It was: nothing was loaded for it."""


@record
class NodeTemplateList:
    """Ask a node for its templates."""

    function_id: str = ""
    """Only those that containers of this function are started from, with what is ready for these, and why there is none
    of it."""


@record
class NodeTemplateListing:
    """The answer to `NodeTemplateList`: what there is, and what cannot be, up to `NODE_TEMPLATES_MAX` in all."""

    templates: tuple[NodeTemplate, ...]
    is_one_coming: bool = False
    """One that the function asked for would be started from is about to be made."""


@record
class NodeTemplateDrop:
    """Drop these templates, and forget these verdicts. What is not there is left out of the answer, and no error.

    Clones that run go on; cells and parked clones end with it.
    """

    template_ids: tuple[str, ...]


@record
class NodeTemplatesFree:
    """To a node that is short of memory: drop templates that free about so much of it, those used longest ago first;
    one at least, where one would free any. What of them is on the disk stays there."""

    wanted_mib: int


@record
class NodeTemplateDropped:
    """The answer to `NodeTemplateDrop` and `NodeTemplatesFree`: those that are."""

    template_ids: tuple[str, ...]


@record
class NodeTemplatesUnneeded:
    """To each node: no container of the app, or of that function of it, will be asked for any more. Its templates go,
    and with them what they hold of its code and variables; nobody is told of it."""

    app_id: str
    function_id: str = ""
    functions: dict[str, int] = field(default_factory=dict)
    """The app goes on with these, by id, each as it is since this version of the app: only those go that hold code or
    variables of others, or of these as they were before. Whoever still asks for one of those gets another template."""


@record
class TemplateInfo:
    """One template as listed."""

    template: NodeTemplate
    node_id: str
    app_name: str = ""
    """Empty where this server does not know the app any more."""
    function_name: str = ""
    environment: str = ""
    """Of the app; empty where this server does not know it any more."""


@record
class SilentNode:
    """A node that did not say what it has, and why."""

    node_id: str
    cause: str


@record
class TemplateList:
    """Ask for templates of all nodes, in the order of nodes and ids; a page of them.

    Errors: `not_found` for an app that there is not.
    """

    app: str = ""
    """By name or id; empty for all."""
    environment: str | None = None
    """Of the app, or where none is named those of its apps; None is all of them."""
    function_id: str = ""
    """As `NodeTemplateList` has it."""
    after_node_id: str = ""
    """The last one of the page before."""
    after_template_id: str = ""

    def following(self, listing: TemplateListing) -> TemplateList | None:
        """The question for the next page."""
        if not listing.is_cut or not listing.templates:
            return None
        last = listing.templates[-1]
        key = (last.node_id, last.template.template_id)
        if key <= (self.after_node_id, self.after_template_id):
            return None
        return replace(self, after_node_id=key[0], after_template_id=key[1])


@record
class TemplateListing:
    """The answer to `TemplateList`: those of the nodes that answered."""

    templates: tuple[TemplateInfo, ...]
    silent_nodes: tuple[SilentNode, ...] = ()
    is_cut: bool = False
    """There are more."""
    is_one_coming: bool = False
    """As `NodeTemplateListing` has it, on one of the nodes."""


@record
class TemplateDrop:
    """Drop templates: of ids, of an app, of one function of it with its variants, or all there are.

    Errors: `invalid` unless one of these is said; `not_found` for an app, a function or an id that no node knows, where
    every node has answered.
    """

    template_ids: tuple[str, ...] = ()
    app: str = ""
    """By name or id."""
    function: str = ""
    """By name; only with an app."""
    environment: str | None = None
    """Of the app; or where all are to go, those of its apps alone. None is all of them."""
    is_all: bool = False


@record
class TemplateDropped:
    """The answer to `TemplateDrop`: what was dropped, and who may still have some."""

    templates: tuple[TemplateInfo, ...]
    silent_nodes: tuple[SilentNode, ...] = ()
