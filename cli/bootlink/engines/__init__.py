"""The servers that `bootlink up` embeds: nats-server and PostgreSQL, each prepared on disk and described by a command.

An engine knows how to make its folder ready and which command runs it; who runs it is the supervisor's business.
"""

from bootlink.engines.nats import NatsEngine
from bootlink.engines.postgres import PostgresEngine

__all__ = ["NatsEngine", "PostgresEngine"]
