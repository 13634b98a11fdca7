"""The spec of the search service."""

from __future__ import annotations

from reconcilers.contract import Kind, Service
from reconcilers.search import definition, documents, model, plan, snapshots, suggesters
from reconcilers.search.backend import connect
from reconcilers.search.documents import own_name, plan_document, plan_preexisting
from schemas import search

KINDS = (
    Kind(model.INDEX, search.Index, model.index_name, definition.definition, plan.plan_index, data_bearing=True),
    Kind(documents.COMPONENT_TEMPLATE, search.ComponentTemplate, own_name, documents.component_template, plan_document),
    Kind(documents.INDEX_TEMPLATE, search.IndexTemplate, own_name, documents.index_template, plan_document),
    Kind(documents.ALIAS, search.Alias, documents.alias_name, documents.alias, plan_document),
    Kind(documents.PIPELINE, search.Pipeline, own_name, documents.pipeline, plan_document),
    Kind(documents.SCRIPT, search.Script, own_name, documents.script, plan_document),
    Kind(documents.SYNONYMS, search.Synonyms, own_name, documents.synonyms, plan_document),
    Kind(documents.LIFECYCLE, search.Lifecycle, own_name, documents.lifecycle, plan_document),
    Kind(documents.REPOSITORY, search.Repository, own_name, documents.repository, plan_document),
    Kind(documents.ROLE, search.Role, own_name, documents.role, plan_document),
    Kind(documents.USER, search.User, documents.user_name, documents.user, plan_document),
    Kind(
        documents.CLUSTER_SETTINGS,
        search.ClusterSettings,
        documents.cluster_name,
        documents.cluster_settings,
        plan_preexisting,
        preexisting=True,
    ),
    Kind(
        snapshots.SNAPSHOT_POLICY,
        search.SnapshotPolicy,
        own_name,
        snapshots.policy,
        snapshots.plan_policy,
        preexisting=True,
    ),
    Kind(
        suggesters.SUGGESTER,
        search.Suggester,
        own_name,
        suggesters.suggester,
        suggesters.plan_suggester,
        preexisting=True,
    ),
)

SERVICE = Service(
    name="search",
    kinds=KINDS,
    target=search.Target,
    connect=connect,
    observe_timeout_s=30.0,
    effect_timeout_s=90.0,
    batch=100,
)
