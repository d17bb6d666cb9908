"""The composition root: pages, REST and websockets in one ASGI application."""

import os

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tir_console.settings")
# Here each request has a thread of its own, so a connection kept after it would help nobody and stay open.
settings.DATABASES["default"]["CONN_MAX_AGE"] = 0
pages = get_asgi_application()

from django.urls import get_resolver  # noqa: E402

from monitoring.live import sockets  # noqa: E402  (needs the applications to be ready)
from tir_console.bodies import limit_bodies  # noqa: E402

_ = get_resolver().url_patterns  # a broken page table ends the process here, not each request later

limit_bodies()

application = ProtocolTypeRouter(
    {
        "http": pages,
        "websocket": AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(sockets))),
    }
)
