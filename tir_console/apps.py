from django.apps import AppConfig

from tir_console.celery import app as celery_app

__all__ = ["TirConsoleConfig", "celery_app"]  # the app must exist before a task is declared or called


class TirConsoleConfig(AppConfig):
    name = "tir_console"
