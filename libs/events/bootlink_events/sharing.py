"""How boot plans lie in their bucket: what many clients have in common is one entry.

Under a client's token (`mac_token`) there is either a whole plan, or a `ClientPart`: what is the client's own, and the
key of the `SharedPart` that makes a plan of it. There is a shared part for each group, and one for those without: what
a client of that group boots that has nothing of its own. So a change of the default link, which changes ten thousand
plans, changes as many entries as there are groups.

Whoever writes puts a shared part before the clients that name it, takes it out after them, and changes it only once
those that are to share it no more have left. The revision of a plan is the greater one of its two parts; both grow, and
are given out from one sequence, so it grows with either.

A refusal that is shared has `{client}` where the client's name stands, as screens have.

Keys: `shared` is of those without a group, `shared_NAME` of a group. NAME has `_` for each dot, as a key cannot have
two dots in a row; no name has a `_`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Discriminator, Field, Tag, TypeAdapter

from bootlink_events.plans import BootPlan, OwnFields, Refusal, SharedFields

NAME: Final = "{client}"  # in the words of a refusal, until it is one client's
_SHARED: Final = "shared"


class SharedPart(SharedFields):
    """What the clients of one group have in common."""

    revision: int = Field(ge=1, description="grows with every change of it")


class ClientPart(OwnFields):
    """What is a client's own, where the rest of its plan is shared."""

    shares: str = Field(description="the key of its shared part")


def _kind(entry: Any) -> str:
    return "part" if isinstance(entry, Mapping) and "shares" in entry else "whole"


_ENTRY: TypeAdapter[BootPlan | ClientPart] = TypeAdapter(
    Annotated[Annotated[BootPlan, Tag("whole")] | Annotated[ClientPart, Tag("part")], Discriminator(_kind)]
)


def shared_key(group: str | None) -> str:
    """The key of the shared part of a group; None: of those without one."""
    return _SHARED if group is None else f"{_SHARED}_{group.replace('.', '_')}"


def is_shared(key: str) -> bool:
    """Whether this is the key of a shared part. A client's token begins with a digit of its address."""
    return key == _SHARED or key.startswith(f"{_SHARED}_")


def read_entry(value: bytes) -> BootPlan | ClientPart:
    """What lies under a client's token. ValidationError if that is no plan."""
    return _ENTRY.validate_json(value)


def join(part: ClientPart, shared: SharedPart) -> BootPlan:
    """The plan that the two make. Both were read, so nothing is looked at again."""
    fields = {**dict(shared), **dict(part), "revision": max(part.revision, shared.revision)}
    del fields["shares"]
    if shared.refusal is not None:
        fields["refusal"] = named(shared.refusal, part.client)
    return BootPlan.model_construct(**fields)


def named(refusal: Refusal, client: str) -> Refusal:
    """A refusal that is told to this client."""
    words = {"detail": refusal.detail.replace(NAME, client), "remedy": refusal.remedy.replace(NAME, client)}
    return refusal.model_copy(update=words)


def read_plan(entries: Mapping[str, bytes], key: str) -> BootPlan | None:
    """The plan under a client's token, of all that is in the bucket; None where there is none, or a part is missing.

    ValidationError if what lies there is no plan.
    """
    value = entries.get(key)
    held = read_entry(value) if value is not None else None
    if not isinstance(held, ClientPart):
        return held
    shared = entries.get(held.shares)
    return join(held, SharedPart.model_validate_json(shared)) if shared is not None else None
