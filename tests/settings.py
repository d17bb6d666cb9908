"""The console's own settings, after the services they name were started."""

import tests.services  # noqa: F401  (first: settings read the environment it fills)
from tir_console.settings import *  # noqa: F403
