"""Assertions on pipelines and synonyms, tried by the server without storing anything. I/O, reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconcilers.search.wire import Refused, Wire, said
from schemas.search import PipelineCheck, SynonymCheck


async def pipeline(wire: Wire, body: Mapping[str, Any], checks: Sequence[PipelineCheck]) -> str:
    """Why an assertion fails; empty when all hold."""
    docs = [{"_source": check.document} for check in checks]
    try:
        answer = await wire.ask("POST", "/_ingest/pipeline/_simulate", {"pipeline": body, "docs": docs})
    except Refused as exc:
        return exc.message
    for number, (check, result) in enumerate(zip(checks, answer["docs"], strict=True)):
        if "error" in result:
            return f"assertion {number}: {said(result['error'])[1]}"
        source = result.get("doc", {}).get("_source", {})
        wrong = {name: source.get(name) for name, value in check.expected.items() if source.get(name) != value}
        if wrong:
            return f"assertion {number}: got {wrong}, expected {dict(check.expected)}"
    return ""


async def synonyms(wire: Wire, body: Mapping[str, Any], checks: Sequence[SynonymCheck]) -> str:
    """The rules are given inline, so that they are tried before they are stored."""
    rules = [row["synonyms"] for row in body["synonyms_set"]]
    filters = ["lowercase", {"type": "synonym_graph", "synonyms": rules}]
    asked = [(check.text, check.matches) for check in checks] or [("any", ())]  # the rules themselves must be sound too
    for text, matches in asked:
        request = {"tokenizer": "standard", "filter": filters, "text": text}
        try:
            answer = await wire.ask("POST", "/_analyze", request)
        except Refused as exc:
            return exc.message
        tokens = {token["token"] for token in answer["tokens"]}
        missing = [one for one in matches if not set(one.lower().split()) <= tokens]
        if missing:
            return f"{text!r} doesn't match {', '.join(map(repr, missing))}: its tokens are {sorted(tokens)}"
    return ""
