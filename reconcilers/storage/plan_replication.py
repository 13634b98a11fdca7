"""The planner of a bucket's replication. Pure.

desired and observed, in words:

    a remote is missing, or logs in otherwise → PutRemote; its rules come with the next look, which knows its ARN
    a rule differs, is missing or is ours no more → SetReplication, with those of others as they are
    a remote that was ours and that no rule names → DropRemote

A rule whose remote isn't there can't stand: where a rule is to go elsewhere at the same endpoint, it goes, then the remote,
then come the new remote and the rule.
"""

from __future__ import annotations

from reconcilers.contract import Difference, ExternalId, Step, TerminalError
from reconcilers.storage import replication
from reconcilers.storage.model import Bucket, HeldBucket
from reconcilers.storage.replication import Held, Rule, Wanted
from reconcilers.storage.steps import DropRemote, PutRemote, SetReplication

Found = tuple[list[Step], list[Difference], list[TerminalError]]


def plan_replication(external: ExternalId, desired: Bucket, observed: HeldBucket) -> Found:
    """See the table above."""
    if desired.replication is None:
        return [], [], []
    wanted, have = {one.rule.id: one for one in desired.replication}, observed.replication
    gone = [
        name for name in have.rules if name in observed.former.get("replication", frozenset()) and name not in wanted
    ]
    differences = [_differs(name, one.rule, have.rules.get(name)) for name, one in wanted.items()]
    differences += [_differs(name, None, have.rules[name]) for name in gone]
    strange = _other_logins(wanted, have)
    differences = [one for one in differences if one.desired != one.observed] + strange
    if differences and observed.quota_bytes is None:
        message = "replication needs a MinIO whose admin API we may use"
        return [], differences, [TerminalError(message, reason="Unsupported")]
    steps = [*_rules(external, wanted, have, gone), *_remotes(external, wanted, observed)]
    return steps, differences, []


def _rules(external: ExternalId, wanted: dict[str, Wanted], have: Held, gone: list[str]) -> list[Step]:
    texts = {name: text for name, text in have.texts.items() if name not in gone}
    arns = []
    for name, one in wanted.items():
        remote = have.remote(one.rule.place) if one.rule.place is not None else None
        if remote is None:
            texts.pop(name, None)
            continue
        arns.append(remote.arn)
        if have.rules.get(name) != one.rule:
            texts[name] = replication.text(one.rule, remote.arn)
    if list(texts.values()) == list(have.texts.values()):
        return []
    return [SetReplication(external, tuple(texts.values()), tuple(wanted), tuple(sorted(set(arns))))]


def _remotes(external: ExternalId, wanted: dict[str, Wanted], observed: HeldBucket) -> list[Step]:
    have = observed.replication
    places = {one.rule.place: one for one in wanted.values() if one.rule.place is not None}
    former = observed.former.get("remotes", frozenset())
    found: list[Step] = [
        DropRemote(external, one.arn)
        for one in have.remotes
        if one.arn in former and one.arn not in have.used and one.place not in places
    ]
    for place, one in places.items():
        remote = have.remote(place)
        if remote is None or not remote.current:
            arn = "" if remote is None else remote.arn
            found.append(PutRemote(external, place, one.access_key, one.secret_key, arn))
    return found


def _other_logins(wanted: dict[str, Wanted], have: Held) -> list[Difference]:
    found = []
    for name, one in wanted.items():
        remote = have.remote(one.rule.place) if one.rule.place is not None else None
        if remote is not None and not remote.current:
            found.append(Difference(f"/replication/{name}/to/secret_key", str(one.secret_key), "another one"))
    return found


def _differs(name: str, wanted: Rule | None, have: Rule | None) -> Difference:
    shown = [None if rule is None else rule.shown() for rule in (wanted, have)]
    return Difference(f"/replication/{name}", *shown)
