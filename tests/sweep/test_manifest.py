"""Recipes of docs/clusters.md: the manifest is as Kubernetes' schema wants it, and all commands
name their job.
"""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpml_bench.system import environment

MANIFEST = Path(__file__).parents[2] / "docs" / "kubernetes.yaml"


def manifest() -> Any:
    return yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))


def test_the_manifest_is_a_job_of_kubernetes() -> None:
    """By the strict schema of 1.33, in which no unknown key passes, and by rules of the API server.

    Limits for each index need indices and pods that are not restarted in place.
    """
    schema = json.loads((Path(__file__).parent / "job-batch-v1.json").read_text())
    assert [
        *pytest.importorskip("jsonschema").Draft7Validator(schema).iter_errors(manifest())
    ] == []
    spec = manifest()["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["podReplacementPolicy"] == "Failed", "the one value beside a podFailurePolicy"
    mounted = {mount["name"] for mount in spec["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["template"]["spec"]["volumes"]}


@pytest.mark.parametrize(
    ("counts", "restart"),
    [
        ({}, 0),
        ({"FAILED": "0"}, 0),
        ({"FAILED": "", "DISRUPTED": ""}, 0),
        ({"FAILED": "1", "DISRUPTED": "2"}, 3),
    ],
)
def test_a_new_pod_is_the_same_job_begun_anew(
    counts: dict[str, str], restart: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name comes from job and index alone; annotations that aren't there are no failures."""
    (container,) = manifest()["spec"]["template"]["spec"]["containers"]
    command = tmp_path / "hpml-bench"
    command.write_text(
        '#!/bin/sh\necho "$HPML_BENCH_JOB $HPML_BENCH_RESTART $HPML_BENCH_ENGINE"; echo "$@"\n'
    )
    command.chmod(0o755)
    given = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    given |= {
        "JOB_NAME": "quick-1",
        "JOB_COMPLETION_INDEX": "3",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        **counts,
    }
    words = [*container["command"], *container["args"]]
    told = subprocess.run(
        words, env=given, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert told == [
        f"quick-1-3 {restart} kubernetes",
        "work /shared/reports/quickstart/plan.json --unit 3",
    ]
    for name, value in zip(
        (environment.JOB, environment.RESTART, environment.ENGINE), told[0].split(), strict=True
    ):
        monkeypatch.setenv(name, value)
    own = environment.this_job()
    assert (own.job, own.restart, own.engine) == ("quick-1-3", restart, "kubernetes")


# PBS and HTCondor


@pytest.mark.parametrize(
    ("words", "given", "name", "unit"),
    [
        (
            [],
            {"PBS_JOBID": "1234[3].server", "PBS_ARRAY_INDEX": "3"},
            ("pbs", "1234-3-server"),
            "3",
        ),
        (
            ["4"],
            {"HPML_BENCH_ENGINE": "htcondor", "HPML_BENCH_JOB": "77-4"},
            ("htcondor", "77-4"),
            "4",
        ),
    ],
)
def test_the_script_of_the_docs_names_its_job(
    words: list[str],
    given: dict[str, str],
    name: tuple[str, str],
    unit: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By what the scheduler says, which is the same after a restart; each start has a number of
    its own.
    """
    page = (MANIFEST.parent / "clusters.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```sh\n(#!/bin/sh\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    command = tmp_path / "hpml-bench"
    command.write_text('#!/bin/sh\necho "$HPML_BENCH_RESTART"; echo "$@"\n')
    command.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **given}
    told = subprocess.run(
        ["sh", "-s", *words],
        input=script,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    restart, work = told.stdout.splitlines()
    assert work == f"work /shared/reports/quickstart/plan.json --unit {unit}"
    for variable, value in {**given, environment.RESTART: restart}.items():
        monkeypatch.setenv(variable, value)
    own = environment.this_job()
    assert (own.engine, own.job) == name
    assert own.restart == int(restart) > 1_700_000_000
