"""`from tir_secrets import get_secret`: a stored secret, for a model's own code.

The console gives an instance each secret as the variable that the endpoint names for it; this finds it by either
name: get_secret("MODEL_API_KEY"), or get_secret("model-api-key") for a variable that is called so in capitals.
"""

import os
import re


def get_secret(name: str) -> str:
    """Its value. KeyError if the endpoint gives no such secret to its instances."""
    given = os.environ.get("TIR_SECRETS", "").split(",")
    for variable in (name, re.sub(r"\W", "_", name).upper()):
        if variable in given and variable in os.environ:
            return os.environ[variable]
    raise KeyError(f"the endpoint gives its instances no secret {name!r}: add it in the step Environment")
