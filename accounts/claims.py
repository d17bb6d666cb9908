"""What stands in a signed token, for those who sign and those who believe. Knows no Django.

iss  the console's address             aud  AUDIENCE
sub  `key:<id>` or `person:<id>`       project  the project's id
key  the id of the key whose traffic and limits its calls are, null for a person's token
endpoints  the ids of those it may call, null for all that its key or person may
scope  `inference`                     iat, exp, jti  as RFC 7519 has them
"""

from datetime import timedelta

ALGORITHM = "EdDSA"
AUDIENCE = "tir-gateway"
REQUIRED = ["iss", "aud", "sub", "iat", "exp", "jti", "project", "scope"]

SHORTEST, USUAL, LONGEST = timedelta(minutes=1), timedelta(minutes=15), timedelta(hours=1)
SKEW = timedelta(seconds=30)  # how far the gateway's clock may be behind the console's
