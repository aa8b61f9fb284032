"""Where child processes begin. The parent hands these over by name, so that it need not import what they import."""


def prepare(settings_json: str, target: str) -> None:
    """Begin `worker.prepare_to`."""
    from hpml_bench import worker

    worker.prepare_to(settings_json, target)


def start(spec_json: str, prepared_json: str, folder: str) -> None:
    """Begin `worker.start` in a rank."""
    from hpml_bench import worker

    worker.start(spec_json, prepared_json, folder)
