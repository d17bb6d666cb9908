"""The REST API's root: one OpenAPI document at /api/docs."""

from ninja import NinjaAPI

api = NinjaAPI(title="TIR console", version="1", urls_namespace="api", docs_url="/docs")
