"""Every verb that talks to a daemon, as a person types it, against the real daemon."""

import asyncio
import json
import os
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest
import yaml

from tests.integration.cli_shell import Shell
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration

PROJECTED_S = 10.0
"""What was accepted is found soon after the answer, not with it."""
SHOP = """\
type: cache.namespace
name: {name}-sessions
labels: {{shop: {name}}}
value: {{prefix: "{name}:s:", layers: [{{target: {name}, ttl_s: 60}}]}}
---
type: cache.namespace
name: {name}-pages
labels: {{shop: {name}}}
value: {{prefix: "{name}:p:", layers: [{{target: {name}, ttl_s: 60}}]}}
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """One daemon for all tests here: each takes names of its own."""
    directory = tmp_path_factory.mktemp("cli")
    with asyncio.Runner() as runner:
        daemon = DaemonProcess(directory / "coreplane", {})
        runner.run(daemon.start())
        yield Shell(daemon.url, directory)
        runner.run(daemon.stop())


@pytest.fixture
def shop(shell: Shell) -> str:
    """Two namespaces that nobody else uses, applied; their common name."""
    name = f"n{uuid.uuid4().hex[:8]}"
    shell("apply", "-f", "-", stdin=SHOP.format(name=name))
    return name


def test_applying_the_same_again_changes_nothing(shell: Shell) -> None:
    text = SHOP.format(name="again")
    assert shell("apply", "-f", "-", stdin=text).splitlines()[-1] == "2 created"
    assert shell("apply", "-f", "-", stdin=text).splitlines()[-1] == "2 unchanged"


def test_a_dry_run_stores_nothing(shell: Shell) -> None:
    assert "nothing stored" in shell("apply", "-f", "-", "--dry-run", stdin=SHOP.format(name="dry"))
    assert shell.json("get", "cache.namespace", "-l", "shop=dry") == []


def test_a_fault_is_told_with_file_document_and_path(shell: Shell) -> None:
    file = shell.directory / "shop.yaml"
    file.write_text(SHOP.format(name="bad").replace("ttl_s: 60", "ttl_s: soon", 1))
    said = shell("apply", "-f", str(file), code=1)
    assert "shop.yaml document 1, line 1 (cache.namespace/bad-sessions) /value/layers/0/ttl_s" in said
    assert shell.json("get", "cache.namespace", "-l", "shop=bad") == []


def test_get_lists_by_type_service_and_label(shell: Shell, shop: str) -> None:
    names = {f"{shop}-sessions", f"{shop}-pages"}
    for selection in (["cache"], ["cache.namespace"], [], ["--service", "cache"]):
        found = shell.json("get", *selection, "-l", f"shop={shop}")
        assert {setting["name"] for setting in found} == names
    table = shell("get", "-l", f"shop={shop}").splitlines()
    assert table[0].split() == ["TYPE", "NAME", "PHASE", "GEN", "AGE", "MESSAGE"]
    assert len(table) == 3


def test_get_of_one_setting_is_an_object(shell: Shell, shop: str) -> None:
    setting = yaml.safe_load(shell("get", f"cache.namespace/{shop}-pages", "-o", "yaml"))
    assert setting["value"]["prefix"] == f"{shop}:p:"
    assert setting == shell.json("get", "cache.namespace", f"{shop}-pages") | {"status": setting["status"]}


def test_the_past_can_be_shown(shell: Shell, shop: str) -> None:
    before = shell.json("get", f"cache.namespace/{shop}-pages")
    shell("apply", "-f", "-", "--reason", "longer", stdin=SHOP.format(name=shop).replace("ttl_s: 60", "ttl_s: 90"))
    past = shell.json("get", f"cache.namespace/{shop}-pages", "--at", str(before["revision"]))
    assert past["value"] == before["value"]
    newest = shell.json("history", f"cache.namespace/{shop}-pages")[0]
    assert newest["reason"] == "longer"
    assert newest["changed"] == ["/value/layers"] or newest["changed"][0].startswith("/value/layers")


def test_what_isnt_there_is_said(shell: Shell) -> None:
    assert "cache.namespace/none" in shell("get", "cache.namespace/none", code=1)
    assert "cache.namespace/none" in shell("describe", "cache.namespace", "none", code=1)


def test_describe_shows_value_and_events(shell: Shell, shop: str) -> None:
    said = shell("describe", "cache.namespace", f"{shop}-pages")
    assert f"cache.namespace/{shop}-pages" in said
    assert f"prefix: '{shop}:p:'" in said or f"prefix: {shop}:p:" in said


def test_export_is_fit_for_apply(shell: Shell, shop: str) -> None:
    exported = shell("export", "-l", f"shop={shop}")
    assert len(list(yaml.safe_load_all(exported))) == 2
    assert shell("apply", "-f", "-", stdin=exported).splitlines()[-1] == "2 unchanged"


def test_prune_retires_what_is_no_longer_in_the_files(shell: Shell, shop: str) -> None:
    first = SHOP.format(name=shop).split("---")[0]
    arguments = ("apply", "-f", "-", "--prune", "-l", f"shop={shop}")
    assert "safety share" in shell(*arguments, stdin=first, code=1)
    assert "1 unchanged, 1 retired" in shell(*arguments, "--allow-prune", stdin=first)


def test_prune_without_labels_is_refused_before_anything_is_sent(shell: Shell) -> None:
    assert "--prune needs -l" in shell("apply", "-f", "-", "--prune", stdin=SHOP.format(name="p"), code=1)


def test_a_wait_that_takes_too_long_ends_with_3(shell: Shell, shop: str) -> None:
    assert "not done after" in shell(
        "wait", f"cache.namespace/{shop}-pages", "--for", "Gone", "--timeout", "1s", code=3
    )


def test_events_tell_what_was_accepted(shell: Shell, shop: str) -> None:
    asked = ("events", f"cache.namespace/{shop}-pages", "--type", "SettingAccepted")
    until = time.monotonic() + PROJECTED_S
    while not (events := shell.json(*asked)) and time.monotonic() < until:
        time.sleep(0.05)
    assert [event["setting"] for event in events] == [f"default/cache.namespace/{shop}-pages"]


def test_following_events_shows_what_happens_after(shell: Shell) -> None:
    environment = {**os.environ, "COREPLANE_URL": shell.url}
    command = [sys.executable, "-m", "controlplane", "events", "-f", "-o", "json", "cache.namespace/follow-pages"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            for ttl_s in range(
                61, 361
            ):  # the stream begins at "now", whenever it is connected: write until it sees one
                shell("apply", "-f", "-", stdin=SHOP.format(name="follow").replace("ttl_s: 60", f"ttl_s: {ttl_s}"))
                if select.select([process.stdout], [], [], 0.1)[0]:
                    break
            assert json.loads(process.stdout.readline())["setting"] == "default/cache.namespace/follow-pages"
        finally:
            process.terminate()


def test_status_and_doctor_report_the_daemon(shell: Shell) -> None:
    assert shell.json("status")["url"] == shell.url
    findings = json.loads(shell.run("doctor", "-o", "json").stdout)
    assert {"check": "daemon", "state": "good"}.items() <= findings[0].items()


def test_an_unknown_operation_is_said(shell: Shell) -> None:
    assert "cache.nonsense" in shell("op", "cache.nonsense", "a=1", code=1)


def test_operations_are_listed_with_their_arguments(shell: Shell) -> None:
    listed = shell("op")
    assert "cache.invalidate" in listed
    assert "[keys]" in listed


def test_reconcile_asks_for_a_look(shell: Shell, shop: str) -> None:
    assert "looked at" in shell("reconcile", f"cache.namespace/{shop}-pages")


def test_a_daemon_that_isnt_there_is_said_with_what_to_do(shell: Shell) -> None:
    said = shell("get", "--url", "http://127.0.0.1:9", code=1)
    assert "http://127.0.0.1:9" in said
    assert "coreplane up" in said


def test_a_mistyped_option_ends_with_1(shell: Shell) -> None:
    assert "--colour" in shell("get", "--colour", code=1)


def test_every_verb_has_a_help_text_with_an_example(shell: Shell) -> None:
    groups = ("up down serve status doctor", "apply get describe delete wait history export reconcile", "events op")
    for verb in " ".join(groups).split():
        assert f"coreplane {verb}" in shell(verb, "--help").replace(f"Usage: coreplane {verb}", "")
