"""The pure planner: from facts and observations to changes and actions. No I/O, no clock of its own."""

from endpoints.planner.facts import (
    Apply,
    DeploymentFacts,
    EndpointFacts,
    Failure,
    InstanceFacts,
    Note,
    PhaseFacts,
    Plan,
    Probe,
    Queue,
    RevisionFacts,
    Room,
)
from endpoints.planner.plan import plan
from endpoints.planner.rollout import needs_room

__all__ = [
    "Apply",
    "DeploymentFacts",
    "EndpointFacts",
    "Failure",
    "InstanceFacts",
    "Note",
    "PhaseFacts",
    "Plan",
    "Probe",
    "Queue",
    "RevisionFacts",
    "Room",
    "needs_room",
    "plan",
]
