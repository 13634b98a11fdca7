"""What of a declaration would reach beyond a tenant's prefix on an Elasticsearch that it shares. Pure.

Indices, aliases, templates, scripts, roles and users can be confined: their names, and all names in them, begin with the
prefix. Pipelines can't, since a processor may send documents into any index; nor can what is of the whole cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from reconcilers.contract import Trespass
from reconcilers.search.definition import flattened, prefixed
from schemas import search

_REACHING = ("index.default_pipeline", "index.final_pipeline", "index.lifecycle.name")
"""Settings that name what can't be confined."""
_NONE = (None, "_none")


def index(value: search.Index, prefix: str) -> list[Trespass]:
    """Further names, pipelines, fields that look things up in other indices, and queries with the daemon's own rights."""
    found = [*_names("/aliases", value.aliases, prefix)]
    found += _settings("/settings", value.settings, prefix)
    found += _settings("/analysis", {"analysis": value.analysis}, prefix)
    found += _mappings("/mappings", value.mappings, prefix)
    if value.migration.verify.queries:
        found.append(Trespass("/migration/verify/queries", "can't be confined: leave them out"))
    return found


def component_template(value: search.ComponentTemplate, prefix: str) -> list[Trespass]:
    """What it would put into indices."""
    return list(_template(value.template, prefix))


def index_template(value: search.IndexTemplate, prefix: str) -> list[Trespass]:
    """Which indices it is for, what it is made of, and what it would put into them."""
    found = [*_listed("/index_patterns", value.index_patterns, prefix)]
    found += _listed("/composed_of", value.composed_of, prefix)
    return [*found, *_template(value.template, prefix)]


def alias(value: search.Alias, prefix: str) -> list[Trespass]:
    """The indices it stands for."""
    found = [*_listed("/indices", value.indices, prefix)]
    if value.write_index is not None and not value.write_index.startswith(prefix):
        found.append(_trespass("/write_index", prefix))
    return found


def script(_value: search.Script, _prefix: str) -> list[Trespass]:
    """Nothing: it runs within what whoever uses it may do."""
    return []


def suggester(value: search.Suggester, prefix: str) -> list[Trespass]:
    """The index it is kept in."""
    return [] if value.index.startswith(prefix) else [_trespass("/index", prefix)]


def role(value: search.Role, prefix: str) -> list[Trespass]:
    """Rights on other indices, on the cluster, and to act as others."""
    whole = {"/cluster": value.cluster, "/applications": value.applications, "/run_as": value.run_as}
    found = [Trespass(path, "reaches beyond indices: leave it out") for path, given in whole.items() if given]
    for number, one in enumerate(value.indices):
        found += _listed(f"/indices/{number}/names", one.names, prefix)
        if one.allow_restricted_indices:
            found.append(Trespass(f"/indices/{number}/allow_restricted_indices", "must be false"))
        if one.query is not None:
            found.append(Trespass(f"/indices/{number}/query", "can't be confined: leave it out"))
    return found


def user(value: search.User, prefix: str) -> list[Trespass]:
    """The roles it has."""
    return list(_listed("/roles", value.roles, prefix))


def _template(template: Mapping[str, Any], prefix: str) -> Iterator[Trespass]:
    yield from _names("/template/aliases", template.get("aliases") or {}, prefix)
    yield from _settings("/template/settings", template.get("settings") or {}, prefix)
    yield from _mappings("/template/mappings", template.get("mappings") or {}, prefix)


def _settings(path: str, settings: Mapping[str, Any], prefix: str) -> Iterator[Trespass]:
    for name, held in prefixed(flattened(settings)).items():
        if name in _REACHING and held not in _NONE:
            yield Trespass(path, f"{name.removeprefix('index.')} can't be confined: leave it out")
        if name.endswith((".synonyms_set", ".synonyms_path", "_path")):
            yield Trespass(path, f"{name.removeprefix('index.')} is of the whole cluster: leave it out")
    del prefix


def _mappings(path: str, mappings: Mapping[str, Any], prefix: str) -> Iterator[Trespass]:
    for name, held in flattened(mappings).items():
        if name.endswith("target_index") and not str(held).startswith(prefix):
            yield Trespass(path, f"{name} must begin with {prefix}")


def _names(path: str, names: Iterable[str], prefix: str) -> Iterator[Trespass]:
    return (_trespass(f"{path}/{name}", prefix) for name in names if not name.startswith(prefix))


def _listed(path: str, names: Iterable[str], prefix: str) -> Iterator[Trespass]:
    """A comma would make two names of one."""
    beyond = (number for number, name in enumerate(names) if not name.startswith(prefix) or "," in name)
    return (_trespass(f"{path}/{number}", prefix) for number in beyond)


def _trespass(path: str, prefix: str) -> Trespass:
    return Trespass(path, f"must begin with {prefix}")
