"""Many endpoints that serve, written in bulk: for tests and benchmarks of what grows with their number."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from endpoints.models import Deployment, Endpoint, Instance, Revision
from endpoints.models.deployment import DeploymentState, InstanceState
from endpoints.runtimes.base import Observed, Phase
from endpoints.status import Status
from tests import make
from tests.runtimes import InstantRuntime


def serving(runtime: InstantRuntime, endpoints: int, instances: int) -> list[str]:
    """Put so many Active endpoints with so many ready instances each into the database and the runtime; the
    instances' names."""
    project, region, kind, spec = make.project(), make.region(), make.instance_type(), make.spec()
    at = timezone.now() - timedelta(hours=1)
    rows = Endpoint.objects.bulk_create(
        Endpoint(
            project=project,
            region=region,
            name=f"crowd-{number}",
            wanted=instances,
            status=Status.ACTIVE,
            observed_generation=1,
            wished_at=at,
        )
        for number in range(endpoints)
    )
    revisions = Revision.objects.bulk_create(
        Revision(
            endpoint=row,
            number=1,
            spec=spec.to_dict() | {"name": row.name},
            instance_type=kind,
            resolved={"size": 98_000_000},
            model_path="/models/tiny.gguf",
        )
        for row in rows
    )
    for row, revision in zip(rows, revisions, strict=True):
        row.serving_revision = revision
    Endpoint.objects.bulk_update(rows, ["serving_revision"], batch_size=500)
    Deployment.objects.bulk_create(
        Deployment(
            endpoint=one.endpoint, revision=one, state=DeploymentState.SUCCEEDED, started_at=at, ended_at=at
        )
        for one in revisions
    )
    made = Instance.objects.bulk_create(
        Instance(
            endpoint=one.endpoint,
            revision=one,
            name=f"{one.endpoint.owner}-r1-n{number}",
            state=InstanceState.READY,
            address=runtime.address,
            started_at=at,
            ready_at=at,
        )
        for one in revisions
        for number in range(instances)
    )
    runtime.add(
        *(
            Observed(one.name, one.endpoint.owner, 1, Phase.RUNNING, runtime.address, None, "", at, None)
            for one in made
        )
    )
    return [one.name for one in made]
