"""Settings, top to bottom. Every variable read here stands in the README's table."""

import sys
from pathlib import Path
from typing import Any

import dj_database_url
import django_stubs_ext
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from tir_console import environment as env

django_stubs_ext.monkeypatch()  # lets ModelForm[User] and its like be written at run time

BASE_DIR = Path(__file__).resolve().parent.parent

# ── what this installation is ────────────────────────────────────────────────────────────────────
DEBUG = env.flag("DEBUG", False)
DATA_DIR = Path(env.text("DATA_DIR", str(BASE_DIR / "data"))).expanduser().absolute()
DATABASE_URL = env.text("DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/tir")
VALKEY_URL = env.text("VALKEY_URL", "redis://127.0.0.1:6379/0")
CONSOLE_URL = env.text("CONSOLE_URL", "http://127.0.0.1:8000").rstrip("/")
GATEWAY_URL = env.text("GATEWAY_URL", "http://127.0.0.1:8080").rstrip("/")
GATEWAY_DOMAIN = env.text("GATEWAY_DOMAIN", "localhost")
HF_ENDPOINT = env.text("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
# The largest file that may be uploaded into the registry, and how much of the disk fetched models may take before
# those unused longest go; 0 leaves both to the disk.
UPLOAD_MAX_BYTES = env.integer("UPLOAD_MAX_BYTES", 0)
STORE_MAX_BYTES = env.integer("STORE_MAX_BYTES", 0)
CPU_OVERCOMMIT = env.number("CPU_OVERCOMMIT", 1.0)
# Months of bills begin and end at this zone's midnight.
BILLING_TIME_ZONE = env.time_zone("BILLING_TIME_ZONE", "Asia/Kolkata")
# How long the result of an asynchronous request is kept, and what has not come to its turn waits.
ASYNC_RESULT_HOURS = env.integer("ASYNC_RESULT_HOURS", 24)
# Whether webhooks may be told at private and loopback addresses: on one's own network, never for strangers.
WEBHOOK_ALLOW_PRIVATE = env.flag("WEBHOOK_ALLOW_PRIVATE", False)
# Whether models may be fetched from them: one's own Git server or MinIO is the usual case.
SOURCES_ALLOW_PRIVATE = env.flag("SOURCES_ALLOW_PRIVATE", True)
SIGN_UP_OPEN = env.flag("SIGN_UP_OPEN", True)
TRUSTED_PROXIES = env.integer("TRUSTED_PROXIES", 0)
# A websocket in which nothing moves for so long is ended.
WEBSOCKET_IDLE_SECONDS = env.integer("WEBSOCKET_IDLE_SECONDS", 600)
# What a gateway tells of requests: to Prometheus, in its log, and one by one on the endpoint's page.
METRICS_TOKEN = env.text("METRICS_TOKEN", "")
GATEWAY_TLS_CERT = env.text("GATEWAY_TLS_CERT", "")
GATEWAY_TLS_KEY = env.text("GATEWAY_TLS_KEY", "")
if bool(GATEWAY_TLS_CERT) != bool(GATEWAY_TLS_KEY):
    raise ImproperlyConfigured("Set both of GATEWAY_TLS_CERT and GATEWAY_TLS_KEY, or neither.")
ACCESS_LOG = env.choice("ACCESS_LOG", "errors", ["off", "errors", "all"])
ACCESS_LOG_FILE = env.text("ACCESS_LOG_FILE", "")
ACCESS_LOG_ADDRESSES = env.flag("ACCESS_LOG_ADDRESSES", False)
REQUEST_RECORD_DAYS = env.integer("REQUEST_RECORD_DAYS", 7)  # 0 remembers none

# `manage.py up` makes one secret key and keeps it in the data folder; in production it is given.
SECRET_KEY = env.text("SECRET_KEY", "")
if not SECRET_KEY:
    if {"runserver", "daphne", "worker", "beat"} & set(sys.argv):
        raise ImproperlyConfigured("SECRET_KEY is not set. Give a random text of 50 characters or more.")
    SECRET_KEY = "not-secret-only-for-commands-that-sign-nothing-" + "x" * 24
# Keys that encrypt stored secrets, newest first; more than one while rotating.
ENCRYPTION_KEYS = env.words("ENCRYPTION_KEYS", [])

_https = CONSOLE_URL.startswith("https://")
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", ["127.0.0.1", "localhost", "[::1]", ".localhost"])
CSRF_TRUSTED_ORIGINS = [CONSOLE_URL]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SECURE_SSL_REDIRECT = _https and env.flag("SECURE_SSL_REDIRECT", True)
SECURE_REDIRECT_EXEMPT = [r"^model-files/"]  # pods ask for models by a Service of their cluster, where no TLS is
SECURE_HSTS_SECONDS = 31_536_000 if _https else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = _https
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 14 * 24 * 3600
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
# Without TLS in front (a laptop) these four cannot hold; with https:// in CONSOLE_URL they do.
_needs_tls = ["security.W004", "security.W008", "security.W012", "security.W016"]
SILENCED_SYSTEM_CHECKS = [] if _https else _needs_tls

# ── applications ─────────────────────────────────────────────────────────────────────────────────
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "django_htmx",
    "template_partials",
    "csp",
    "axes",
    "channels",
    "ninja",
    "accounts",
    "endpoints",
    "monitoring",
    "billing",
    "gateway",
    "tir_console",
]
MIDDLEWARE = [
    "tir_console.health.HealthMiddleware",  # a kubelet asks by a pod's address, without TLS
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "accounts.middleware.LoginForFragmentsMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "accounts.middleware.ViewerTimezoneMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "tir_console.urls"
ASGI_APPLICATION = "tir_console.asgi.application"
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "tir_console.frame.frame",
            ],
            "builtins": [
                "django_htmx.templatetags.django_htmx",
                "endpoints.templatetags.formats",
                "endpoints.templatetags.pieces",
            ],
        },
    }
]
FORM_RENDERER = "django.forms.renderers.DjangoTemplates"

# ── data ─────────────────────────────────────────────────────────────────────────────────────────
_database = dict(dj_database_url.parse(DATABASE_URL, conn_max_age=60, conn_health_checks=True))
_options: Any = _database.get("OPTIONS", {})
_database["OPTIONS"] = {"connect_timeout": 3, "application_name": "tir", **_options}
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": VALKEY_URL,
        "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 2},
    }
}
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [{"address": VALKEY_URL}], "prefix": "tir"},
    }
}

# ── people ───────────────────────────────────────────────────────────────────────────────────────
AUTH_USER_MODEL = "accounts.User"
LOGIN_URL = "accounts:login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "accounts:login"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.Argon2PasswordHasher"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
# Throttled by person and address together, so that nobody can lock out somebody else.
AXES_FAILURE_LIMIT = 8
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_USERNAME_FORM_FIELD = "username"
AXES_LOCKOUT_CALLABLE = "accounts.views.locked_out"
AXES_RESET_ON_SUCCESS = True
AXES_IPWARE_PROXY_COUNT = TRUSTED_PROXIES
AXES_VERBOSE = False

# ── mail ─────────────────────────────────────────────────────────────────────────────────────────
# Without a server none is sent: sign-ups work at once, and `manage.py login_link` helps who forgot a password.
EMAIL_HOST = env.text("EMAIL_HOST", "")
EMAIL_PORT = env.integer("EMAIL_PORT", 587)
EMAIL_HOST_USER = env.text("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = env.text("EMAIL_HOST_PASSWORD", "")
EMAIL_USE_TLS = env.flag("EMAIL_USE_TLS", True)
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.text("EMAIL_FROM", "TIR console <tir@localhost>")

# ── language and time ────────────────────────────────────────────────────────────────────────────
LANGUAGE_CODE = "en"
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"

# ── static files ─────────────────────────────────────────────────────────────────────────────────
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.FileSystemFinder",
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
    "tir_console.plotly_finder.PlotlyFinder",
]
WHITENOISE_USE_FINDERS = True

# Django's own pages need nothing inline but plotly's empty style element.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF],
        "style-src": [SELF, "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"],
        "img-src": [SELF, "data:", "blob:"],
        "connect-src": [SELF, GATEWAY_URL],
        "object-src": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}

# ── work ─────────────────────────────────────────────────────────────────────────────────────────
CELERY_BROKER_URL = VALKEY_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = False  # a lost message is a lost ring: the sweep gets there
CELERY_TASK_SERIALIZER = "json"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_connect_timeout": 1, "socket_timeout": 5, "max_retries": 1}
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TIMEZONE = "UTC"

# ── logs ─────────────────────────────────────────────────────────────────────────────────────────
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)-7s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.text("LOG_LEVEL", "INFO")},
    "loggers": {
        "httpx": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},
        "daphne": {"level": "WARNING"},
        "axes": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
    },
}
