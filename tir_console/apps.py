from django.apps import AppConfig


class TirConsoleConfig(AppConfig):
    name = "tir_console"
