"""The example is sound by the schemas, and shows what there is to show."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.devstack import shop
from controlplane.devstack.stack import BACKENDS
from schemas.kinds import KINDS
from schemas.secret import SecretRef, references_in
from schemas.setting import Declaration

DECLARATIONS = shop.declarations()


@pytest.mark.parametrize("content", DECLARATIONS, ids=lambda content: f"{content['type']}/{content['name']}")
def test_every_declaration_of_the_example_is_valid(content: dict[str, Any]):
    declaration = Declaration.model_validate(content)
    KINDS[declaration.type].model_validate(declaration.value)
    assert declaration.labels["app"] == "shop"
    assert "team" in declaration.labels


def service_of(content: dict[str, Any]) -> str:
    return str(content["type"]).partition(".")[0]


NOT_ON_THE_STACK = {"search.lifecycle"}
"""The stack's Elasticsearch lacks its module."""
SERVICES = sorted({service_of(content) for content in DECLARATIONS})


@pytest.mark.parametrize("service", SERVICES)
def test_the_example_uses_every_kind_of_a_service_but_the_targets_which_the_stack_declares(service: str):
    used = {content["type"] for content in DECLARATIONS if service_of(content) == service}
    kinds = {kind for kind in KINDS if kind.startswith(f"{service}.") and kind != f"{service}.target"}
    assert used == kinds - NOT_ON_THE_STACK


@pytest.mark.parametrize("service", SERVICES)
def test_the_example_names_only_targets_that_the_stack_declares(service: str):
    values = [content["value"] for content in shop.declarations([service])]
    named = {value["target"] for value in values if "target" in value}
    layers = {layer["target"] for value in values for layer in value.get("layers", ())}
    assert named | layers == {backend.declared_as for backend in BACKENDS[service]}


def test_what_the_example_depends_on_is_in_it():
    names = {f"{content['type']}/{content['name']}" for content in DECLARATIONS}
    needed = {reference for content in DECLARATIONS for reference in content.get("depends_on", ())}
    assert needed
    assert needed <= names


def test_secrets_of_the_example_are_files_that_resolve_below_any_data_directory():
    values = [KINDS[content["type"]].model_validate(content["value"]) for content in DECLARATIONS]
    references = [reference for value in values for reference in references_in(value)]
    assert references
    assert all(isinstance(found, SecretRef) and str(found.from_file).startswith("secrets/") for found in references)
