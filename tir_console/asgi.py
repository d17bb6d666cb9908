"""The composition root: pages, REST and websockets in one ASGI application."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tir_console.settings")
pages = get_asgi_application()

from django.urls import get_resolver  # noqa: E402

from monitoring.live import sockets  # noqa: E402  (needs the applications to be ready)

_ = get_resolver().url_patterns  # a broken page table ends the process here, not each request later

application = ProtocolTypeRouter(
    {
        "http": pages,
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(sockets))),
    }
)
