#!/usr/bin/env python
"""The console's command line."""

import os
import sys

if __name__ == "__main__":
    from tir_console import up

    if sys.argv[1:2] == ["up"]:  # starts the services that the settings name, so before they are read
        sys.exit(up.main(sys.argv[2:]))

    from tir_console.up.environment import adopt

    adopt()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tir_console.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
