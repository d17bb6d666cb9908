"""The console's own settings, after the services they name were started."""

import tests.services  # noqa: F401  (first: settings read the environment it fills)
from tir_console.settings import *  # noqa: F403

# Argon2 is slow by design; a test that is about it names it itself.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# Found when asked for: else every client of every test looks at all static files first, which takes 14 ms.
WHITENOISE_AUTOREFRESH = True
