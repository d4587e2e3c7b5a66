"""Which role each operation of the API needs.

Operations are named as the functions that answer them, which is their `operationId` too. One that is not in the table
is the administrator's alone, and fails a test until somebody has decided (tests/contract/test_roles.py).

viewer    reads
operator  also acts on clients, links and boots, and moves channels between versions that there are
admin     also adds, changes and removes images; tokens; webhooks; settings
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fastapi import Request

from bootlink_registry.problems import Problem
from bootlink_registry.tokens import Identity, Role

OPERATION_ROLES: Final[Mapping[str, Role]] = {
    "info": "viewer",
    # images
    "list_images": "viewer",
    "show_image": "viewer",
    "add_image": "admin",
    "change_image": "admin",
    "remove_image": "admin",
    "list_versions": "viewer",
    "show_version": "viewer",
    "add_version": "admin",
    "change_version": "admin",
    "remove_version": "admin",
    "publish": "operator",
    "roll_back": "operator",
    "remove_channel": "operator",
    "import_image": "admin",
    "export_image": "admin",
    "verify_image": "operator",
    "merge_image": "admin",
    "compact_image": "admin",
    # links
    "list_links": "viewer",
    "show_link": "viewer",
    "show_unnamed_link": "viewer",
    "set_link": "operator",
    "remove_link": "operator",
    "remove_unnamed_link": "operator",
    "show_menu": "viewer",
    "show_unnamed_menu": "viewer",
    "set_menu": "operator",
    "set_unnamed_menu": "operator",
    "remove_menu": "operator",
    "remove_unnamed_menu": "operator",
    # clients
    "list_clients": "viewer",
    "show_client": "viewer",
    "add_client": "operator",
    "change_client": "operator",
    "remove_client": "operator",
    "leave_node": "operator",
    "wake_client": "operator",
    "export_roster": "viewer",
    "import_roster": "operator",
    "list_groups": "viewer",
    "show_group": "viewer",
    "rename_group": "operator",
    "move_clients": "operator",
    "show_group_settings": "viewer",
    "set_group_settings": "operator",
    # who may come in
    "show_rule": "viewer",
    "change_rule": "admin",
    "list_sightings": "viewer",
    "accept_sighting": "operator",
    "forget_sighting": "operator",
    # super clients, and what clients wrote
    "list_branches": "viewer",
    "show_branch": "viewer",
    "open_branch": "operator",
    "abandon_branch": "operator",
    "throw_away": "operator",
    "commit": "operator",
    "list_writebacks": "viewer",
    "undo_reboot": "operator",
    "show_own_layer": "viewer",
    "drop_own_layer": "operator",
    "rebase": "operator",
    # jobs
    "list_jobs": "viewer",
    "show_job": "viewer",
    "cancel_job": "operator",
    # boots
    "list_boots": "viewer",
    "show_boot": "viewer",
    # webhooks: whoever knows the URL of a receiver may often speak to it, and a filter tells who is watched
    "list_webhooks": "admin",
    "show_webhook": "admin",
    "add_webhook": "admin",
    "change_webhook": "admin",
    "remove_webhook": "admin",
    "replace_secret": "admin",
    "list_dead_events": "admin",
    "resend_dead_events": "admin",
    # tokens: who may list them could tell which one is worth stealing
    "list_tokens": "admin",
    "show_token": "admin",
    "add_token": "admin",
    "remove_token": "admin",
}


def role_for(operation: str) -> Role:
    """The role that an operation needs."""
    return OPERATION_ROLES.get(operation, "admin")


def identity_of(request: Request) -> Identity:
    """Who makes this request, which the guard has let in."""
    identity: Identity = request.state.identity
    return identity


def require_role(request: Request) -> None:
    """A dependency of every route. Raises Problem unless the token's role suffices."""
    identity = identity_of(request)
    needed = role_for(request.scope["endpoint"].__name__)
    if not identity.may(needed):
        raise Problem(
            403,
            f"the token {identity.name!r} is of role {identity.role}, and this needs {needed}",
            f"use another token, or have an administrator make one: bootlink token add NAME --role {needed}",
        )
