"""Profiles: what is wrong in one is told in a sentence with its place, and where one is found."""

from pathlib import Path

import pytest
import yaml

from helpers.commands import called
from hpml_bench.suite import registry
from hpml_bench.suite.profile import Profile, load_profile, profiles_folder
from hpml_bench.system.errors import UserError


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of profiles."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config/hpml-bench/clusters"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("engine: [", "p.yaml"),
        ("- slurm", "a profile is a mapping with engine, unit"),
        ("", "a profile is a mapping"),
        ("engine: slurm\nengine: ray", "engine"),
        ("unit: seed", "engine"),
        ("engine: slurm\nunit: method", "unit"),
        ("engine: slurm\nqueue: gpu", "queue"),
        ("engine: sge", "there is no engine 'sge'; registered are local, manual, ray, slurm"),
        ("engine: slurm\nparallel: 0", "parallel"),
        ("engine: slurm\nnodes: 0", "nodes"),
        ("engine: slurm\ngpus_per_node: -1", "gpus_per_node"),
        ("engine: slurm\ntime: 4:00:00", "write it in quotes"),  # to YAML a number in base 60
        ("engine: slurm\ntime: 240", "write it in quotes"),
        ('engine: slurm\ntime: "2:00"', "write it in quotes as H:MM:SS"),
        ('engine: slurm\ntime: "4h"', "write it in quotes"),
        ("engine: slurm\nmemory_per_node: 64 GB", "is '64 GB': write a number with its unit K, M"),
        ("engine: slurm\nenv: {NCCL-DEBUG: INFO}", "'NCCL-DEBUG' can't be a variable's name"),
        (
            "engine: slurm\noptions: {partition: gpu}",
            "write an option of sbatch under sbatch, as {sbatch: {partition:",
        ),
        (
            "engine: slurm\npartition: gpu",
            "under options, such as sbatch's: {sbatch: {partition: gpu}}",
        ),
        ("engine: ray\noptions: {adress: x}", "adress"),
        ("engine: manual\noptions: {x: 1}", "options"),
        ("engine: slurm\nsetup: module load cuda", "setup"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, told: str, tmp_path: Path) -> None:
    """The file, the key, and what it may be."""
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        load_profile(str(tmp_path / "p.yaml"))
    assert told in str(error.value)
    assert "p.yaml" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("engine:", "engine is empty, and must be text"),
        ("engine: 3", "engine is 3, and must be text (in quotes)"),
        ("engine: [slurm]", "engine is ['slurm'], and must be text"),
        ("engine: slurm\nunit: method", "unit is 'method', and must be 'seed' or 'run'"),
        ("engine: slurm\nparallel: 0", "parallel is 0, and must be at least 1"),
        ("engine: slurm\nparallel: 20000", "parallel is 20000, and must be at most 10000"),
        ("engine: slurm\nparallel: many", "parallel is 'many', and must be a whole number"),
        ("engine: slurm\nnodes: 1.5", "nodes is 1.5, and must be a whole number"),
        ("engine: slurm\nexclusive: maybe", "exclusive is 'maybe', and must be true or false"),
        ("engine: slurm\nscratch: 3", "scratch is 3, and must be text (in quotes)"),
        ("engine: slurm\nlauncher: srun", "launcher is 'srun', and must be a list, as [a, b]"),
        ("engine: slurm\nenv: [a]", "env is ['a'], and must be a mapping, as {KEY: VALUE}"),
        ("engine: slurm\nenv: {A: 1}", "env.A is 1, and must be text (in quotes)"),
        ("engine: slurm\n3: x", "the key 3 must be text (in quotes)"),
        ("engine: slurm\noptions: {lag: soon}", "options: lag is 'soon', and must be a number"),
        ("engine: slurm\noptions: {array: 0}", "options: array is 0, and must be at least 1"),
        ("engine: manual\noptions: {x: 1}", "options: x is not known (allowed: none)"),
        ("unit: seed", "engine is missing"),
    ],
)
def test_a_mistake_is_a_sentence_as_of_suites(text: str, sentence: str, tmp_path: Path) -> None:
    """With the key, its value and what it must be, in words that need no knowledge of Python."""
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        load_profile(str(file))
    assert str(error.value) == f"{file}: {sentence}"


@pytest.mark.parametrize(
    ("time", "seconds", "warned"),
    [
        ("4:00:00", 14_400, 120),
        ("1-00:30:00", 88_200, 120),
        ("0:02:00", 120, 30),
        ("100:00:00", 360_000, 120),
    ],
)
def test_a_time_limit_is_read_as_slurm_reads_it(time: str, seconds: float, warned: float) -> None:
    """Seconds, and those before it at which a job is asked to end."""
    profile = Profile(engine="slurm", time=time)
    assert (profile.seconds, profile.warned) == (seconds, warned)
    assert Profile(engine="slurm").seconds is None


def test_ranks_are_shared_by_the_nodes() -> None:
    """In equal parts, where their number is known."""
    profile = Profile(engine="slurm", nodes=2)
    assert (profile.ranks_per_node(None), profile.ranks_per_node(4)) == (None, 2)
    with pytest.raises(UserError, match="3 ranks can't be divided over 2 nodes"):
        profile.ranks_per_node(3)


def test_a_profile_is_found_by_path_by_name_or_as_an_engine(
    own_folder: Path, tmp_path: Path
) -> None:
    """In this order; what the command line says wins over the file."""
    (own_folder / "mine.yaml").write_text("engine: manual\nparallel: 3\n")
    assert load_profile("mine").parallel == 3
    assert load_profile("mine", [("parallel", 5)]).parallel == 5
    assert load_profile("slurm").engine == "slurm"
    (own_folder / "slurm.yaml").write_text('engine: slurm\ntime: "1:00:00"\n')
    assert load_profile("slurm").seconds == 3600
    with pytest.raises(UserError) as error:
        load_profile("nowhere")
    assert "there is no profile 'nowhere'" in str(error.value)
    assert "mine" in str(error.value)
    assert str(profiles_folder()) in str(error.value)


def test_clusters_and_engines_are_listed(own_folder: Path) -> None:
    """What `--on` takes: the user's profiles with their files, and engines with their defaults."""
    (own_folder / "mine.yaml").write_text("engine: manual\n")
    (own_folder / "slurm.yaml").write_text("engine: slurm\n")
    lines = dict(line.split(maxsplit=1) for line in called("list", "clusters").output.splitlines())
    assert set(lines) == {*registry.names("engines"), "mine"}
    assert lines["mine"] == str(own_folder / "mine.yaml")
    assert lines["slurm"] == str(own_folder / "slurm.yaml"), (
        "one's own takes the place of the engine's defaults"
    )
    assert lines["ray"] == "the engine with its defaults"
    engines = [line.split()[0] for line in called("list", "engines").output.splitlines()]
    assert engines == ["local", "manual", "ray", "slurm"]


def test_the_page_on_clusters_shows_every_key() -> None:
    """In its example of a profile, which can be read."""
    page = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text()
    shown = next(text for text in page.split("\n\n") if text.startswith("    engine: slurm"))
    profile = Profile.model_validate(yaml.safe_load(shown))
    assert profile.model_fields_set == set(Profile.model_fields)
