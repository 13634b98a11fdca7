"""The chart without helm: values, their schema and the daemon's configuration say the same. `ci/check` renders it."""

import hashlib
import re
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from controlplane.api.auth import check_binding
from controlplane.api.routes import ROUTES
from controlplane.api.table import Route
from controlplane.cli import configuration
from controlplane.config import Config

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "coreplane"
OWNED = {
    "Config": {"data_dir"},
    "HttpConfig": {"advertise", "host", "port", "tls"},
    "ProjectionConfig": {"member"},
}
"""What the chart decides, by model: not among its values."""
TEMPLATE_REFUSES = {
    *("no-tokens", "no-image", "scrape-without-secret", "scrape-of-some-tenants", "short-grace"),
    *("two-replicas", "no-fingerprint-key", "claim-of-several", "log-elsewhere", "projection-elsewhere"),
}
"""Refused by a template, not by the schema."""

PASSED_WHOLE = {
    *("config", "resources", "podSecurityContext", "securityContext"),
    *("startupProbe", "livenessProbe", "readinessProbe"),
}
"""Values that templates hand on without looking into them."""


def read(name: str) -> Any:
    return yaml.safe_load((CHART / name).read_text(encoding="utf-8"))


def templates() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((CHART / "templates").rglob("*.*")))


def over(below: Any, above: Any) -> Any:
    """As helm lays values over values: maps are merged, a null removes what is below, everything else replaces."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return deepcopy(above)
    removed = {name for name, value in above.items() if value is None and name in below}
    merged = {**below, **{name: over(below.get(name), value) for name, value in above.items()}}
    return {name: value for name, value in merged.items() if name not in removed}


def values(file: Path | None = None) -> dict[str, Any]:
    return over(read("values.yaml"), {} if file is None else yaml.safe_load(file.read_text(encoding="utf-8")))


def faults(content: dict[str, Any]) -> list[str]:
    return [
        f"{error.json_path}: {error.message}"
        for error in Draft202012Validator(read("values.schema.json")).iter_errors(content)
    ]


def configured(content: dict[str, Any], folder: Path) -> Config:
    """The configuration as the template makes it, read as the daemon does."""
    path = folder / "coreplane.yaml"
    path.write_text(yaml.safe_dump(over(content["config"], read("files/fixed.yaml"))), encoding="utf-8")
    return configuration.load(path)


def bare(schema: Any) -> Any:
    """A schema without what only people read."""
    if isinstance(schema, list):
        return [bare(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        word: {name: bare(inner) for name, inner in content.items()} if word == "properties" else bare(content)
        for word, content in schema.items()
        if word not in {"title", "description", "default"}
    }


def leaves(content: Any, path: str = "") -> list[str]:
    if not isinstance(content, dict) or not content:
        return [path]
    return [leaf for name, inner in content.items() for leaf in leaves(inner, f"{path}.{name}")]


def test_the_chart_installs_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert read("Chart.yaml")["appVersion"] == project["version"]


def test_the_schema_of_the_values_is_a_schema_and_the_defaults_obey_it() -> None:
    Draft202012Validator.check_schema(read("values.schema.json"))
    assert faults(values()) == []


def test_every_value_has_a_default_that_documents_it() -> None:
    described = read("values.schema.json")["properties"]
    assert set(described) - set(values()) == {"global"}


def test_the_configuration_in_the_values_is_the_daemons_without_what_the_chart_decides() -> None:
    daemons = Config.model_json_schema()
    models = {"Config": daemons, **daemons.pop("$defs")}
    del models["TlsConfig"]
    expected = {name: bare(model) for name, model in models.items()}
    for name, fields in OWNED.items():
        for field in fields:
            del expected[name]["properties"][field]
    chart = read("values.schema.json")["$defs"]
    assert {name: bare(chart[name]) for name in expected} == expected


def test_the_default_values_are_the_defaults_of_the_daemon() -> None:
    defaults = Config().model_dump(mode="json")
    assert over(defaults, read("values.yaml")["config"]) == defaults


def test_of_the_configuration_only_tokens_must_be_given(tmp_path: Path) -> None:
    content = values()
    with pytest.raises(ValueError, match=r"no auth\.tokens are configured"):
        check_binding(configured(content, tmp_path))
    content["config"]["auth"]["tokens"] = [
        {"name": "operator", "sha256": hashlib.sha256(b"example").hexdigest(), "role": "admin"}
    ]
    config = configured(content, tmp_path)
    check_binding(config)
    assert (config.http.host, config.log.url, config.projection.url) == ("0.0.0.0", "", "")


@pytest.mark.parametrize("file", sorted((CHART / "ci").glob("*-values.yaml")), ids=lambda path: path.stem)
def test_example_values_obey_the_schema_and_the_daemon_takes_them(file: Path, tmp_path: Path) -> None:
    content = values(file)
    assert faults(content) == []
    check_binding(configured(content, tmp_path))


@pytest.mark.parametrize("file", sorted((CHART / "ci" / "refused").glob("*.yaml")), ids=lambda path: path.stem)
def test_what_must_be_refused_is_refused_by_the_schema_or_by_words_of_a_template(file: Path) -> None:
    words = file.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# says: ")
    if file.stem in TEMPLATE_REFUSES:
        assert faults(values(file)) == []
        assert re.sub(r"\d+$", "", words) in templates()
    else:
        assert faults(values(file)) != []


def test_templates_and_values_name_the_same_things() -> None:
    text, content = templates(), values()
    assert set(re.findall(r"\.Values\.(\w+)", text)) == set(content)
    single = leaves({name: value for name, value in content.items() if name not in PASSED_WHOLE})
    assert [leaf for leaf in single if not re.search(rf"\.{leaf.rpartition('.')[2]}\b", text)] == []


def test_probes_and_scrapes_ask_for_routes_that_exist() -> None:
    routes: dict[str, Route] = {route.path: route for route in ROUTES}
    asked = set(re.findall(r"path: (/\w+)", templates()))
    assert asked == {"/healthz", "/readyz", "/metrics"}
    assert asked <= routes.keys()
