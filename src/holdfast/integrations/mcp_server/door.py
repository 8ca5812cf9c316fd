"""The one door to the MCP SDK for the server; the event store has its own (`holdfast.integrations.mcp`)."""

from __future__ import annotations

from holdfast.errors import MissingExtra

try:
    import mcp.types as types
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
    from mcp.server.auth.provider import AccessToken
    from mcp.server.context import ServerRequestContext
    from mcp.server.lowlevel.server import NotificationOptions, Server
    from mcp.server.stdio import stdio_server
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from mcp.server.subscriptions import (
        InMemorySubscriptionBus,
        ListenHandler,
        ResourcesListChanged,
        ResourceUpdated,
    )
    from mcp.shared.exceptions import MCPError
except ImportError as error:  # pragma: no cover - tests/house has a bare install
    raise MissingExtra("the MCP SDK is not installed", hint="pip install 'holdfast[mcp]'") from error

__all__ = [
    "AccessToken",
    "AuthenticatedUser",
    "InMemorySubscriptionBus",
    "ListenHandler",
    "MCPError",
    "NotificationOptions",
    "ResourceUpdated",
    "ResourcesListChanged",
    "Server",
    "ServerRequestContext",
    "StreamableHTTPSessionManager",
    "stdio_server",
    "types",
]
