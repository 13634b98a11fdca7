"""What declarations stand on by the names in them, and what would reach beyond a prefix."""

from __future__ import annotations

from typing import Any

import pytest

from reconcilers.contract import Kind
from reconcilers.registry import SERVICES
from schemas.storage import Target

KINDS: dict[str, Kind[Any, Any, Any]] = {
    kind.setting_type.partition(".")[2]: kind for kind in SERVICES["storage"].kinds
}
SECRET = {"secret_key": {"from_env": "S"}}
HOOK = {"id": "h", "arn": "arn:minio:sqs::shop-hook:webhook", "events": ["s3:ObjectCreated:*"]}


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"document": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **one} for one in statements]}}


def value_of(kind: str, value: dict[str, Any]) -> Any:
    return KINDS[kind].value.model_validate({"target": "main", **value})


@pytest.mark.parametrize(
    ("kind", "value", "needs"),
    [
        ("bucket", {}, []),
        ("bucket", {"notifications": [HOOK]}, ["storage.server_config/notify_webhook:shop-hook"]),
        ("user", SECRET, []),
        ("user", {**SECRET, "policies": ["pol"], "groups": ["grp"]}, ["storage.policy/pol", "storage.group/grp"]),
        ("group", {"policies": ["pol"], "members": ["usr"]}, ["storage.policy/pol"]),
        ("access_key", {**SECRET, "user": "app"}, ["storage.user/app"]),
    ],
)
def test_what_is_named_is_waited_for_once_it_is_declared(kind: str, value: dict[str, Any], needs: list[str]):
    assert list(KINDS[kind].requires(value_of(kind, value))) == needs


@pytest.mark.parametrize(
    ("kind", "value", "paths"),
    [
        ("bucket", {"versioning": "enabled", "quota_bytes": 5, "access": "public-read", "encryption": "sse-s3"}, []),
        ("bucket", {"notifications": [HOOK]}, ["/notifications/0/arn"]),
        ("bucket", {"notifications": [{**HOOK, "arn": "arn:minio:sqs::acme-hook:webhook"}]}, []),
        ("bucket", {"encryption": {"kms_key": "shop"}}, ["/encryption/kms_key"]),
        ("bucket", {"encryption": {"kms_key": "acme-1"}}, []),
        ("policy", policy({"Action": ["s3:*"], "Resource": ["arn:aws:s3:::acme-*"]}), []),
        ("policy", policy({"Action": "s3:*", "Resource": "arn:aws:s3:::*"}), ["/document/Statement/0/Resource"]),
        ("policy", policy({"Action": "s3:*"}), ["/document/Statement/0/Resource"]),
        (
            "policy",
            policy({"Action": ["s3:*", "admin:*"], "Resource": ["arn:aws:s3:::acme-*"]}),
            ["/document/Statement/0/Action"],
        ),
        ("policy", policy({"Action": "*", "Resource": "arn:aws:s3:::acme-a"}), ["/document/Statement/0/Action"]),
        (
            "policy",
            policy({"NotAction": "s3:PutObject", "NotResource": "arn:aws:s3:::shop"}),
            [f"/document/Statement/0/{field}" for field in ("NotAction", "NotResource", "Resource")],
        ),
        (
            "policy",
            policy(
                {"Effect": "Deny", "Action": "*", "Resource": "*"},
                {"Action": "s3:GetObject", "Resource": ["arn:aws:s3:::acme-a/*", "arn:aws:s3:::${aws:username}/*"]},
            ),
            ["/document/Statement/1/Resource"],
        ),
        (
            "user",
            {**SECRET, "policies": ["acme-rw", "consoleAdmin"], "groups": ["staff"]},
            ["/policies/1", "/groups/0"],
        ),
        ("group", {"members": ["acme-app", "root"], "policies": ["readwrite"]}, ["/members/1", "/policies/0"]),
        ("access_key", {**SECRET, "user": "shop-app"}, ["/user"]),
        ("access_key", {**SECRET, "user": "acme-app"}, []),
    ],
)
def test_what_would_reach_beyond_the_prefix_is_told_by_its_path(kind: str, value: dict[str, Any], paths: list[str]):
    confine = KINDS[kind].confine
    assert confine is not None
    assert [trespass.path for trespass in confine(value_of(kind, value), "acme-")] == paths


def test_parameters_of_the_whole_server_can_not_be_confined():
    assert KINDS["server_config"].confine is None


def test_a_server_is_one_place_however_it_is_spelled():
    places = SERVICES["storage"].places
    assert places is not None
    login = {"access_key": {"from_env": "K"}, "secret_key": {"from_env": "S"}}
    spelled = ("http://localhost:9000", "http://127.0.0.1:9000/", "http://[::1]:9000", "HTTP://LOCALHOST:9000")
    assert len({places(Target.model_validate({"endpoint": url, **login})) for url in spelled}) == 1
    other = Target.model_validate({"endpoint": "https://localhost", **login})
    assert places(other) == ("localhost", 443)
