"""The Celery application and the whole beat table."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tir_console.settings")

app = Celery("tir")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["endpoints", "monitoring", "billing", "gateway.jobs"])

app.conf.task_default_queue = "control"
app.conf.task_routes = {
    "endpoints.validate": {"queue": "slow"},
    "endpoints.build": {"queue": "slow"},
    "endpoints.rebuild": {"queue": "slow"},
    "endpoints.fetch": {"queue": "slow"},
    "endpoints.import_version": {"queue": "slow"},
    "endpoints.tidy_store": {"queue": "slow"},
    "endpoints.tidy_regions": {"queue": "slow"},
}
# `expires` drops what a worker that was away would otherwise do many times over.
app.conf.beat_schedule = {
    "sweep": {"task": "endpoints.sweep", "schedule": 2.0, "options": {"expires": 2}},
    "autoscale": {"task": "endpoints.autoscale", "schedule": 2.0, "options": {"expires": 2}},
    "capacity": {"task": "endpoints.measure_capacity", "schedule": 10.0, "options": {"expires": 10}},
    "regions": {"task": "endpoints.tidy_regions", "schedule": 600.0, "options": {"expires": 600}},
    "imports": {"task": "endpoints.resume_imports", "schedule": 5.0, "options": {"expires": 5}},
    "store": {"task": "endpoints.tidy_store", "schedule": 300.0, "options": {"expires": 300}},
    "tick": {"task": "monitoring.tick", "schedule": 1.0, "options": {"expires": 1}},
    "logs": {"task": "monitoring.collect_logs", "schedule": 1.0, "options": {"expires": 1}},
    "samples": {"task": "monitoring.sample", "schedule": 5.0, "options": {"expires": 5}},
    "measure": {"task": "monitoring.measure", "schedule": 60.0, "options": {"expires": 60}},
    "webhooks": {"task": "gateway.ring_webhooks", "schedule": 2.0, "options": {"expires": 2}},
    "async": {"task": "gateway.expire_requests", "schedule": 60.0, "options": {"expires": 60}},
    "retention": {"task": "monitoring.expire", "schedule": 3600.0, "options": {"expires": 3600}},
}
