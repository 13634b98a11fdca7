"""The daemon at work: what follows the log, drives the backends and keeps them there. Generic over services.

Every replica:
    replica      the folded settings log and the answers to writes
    statuses     the last status of every key
Shard owners:
    controller   which shards are ours, a loop per target, keys to their loops
    announcer    folded records → events, then the work they cause
    shards       the right to act: takeover, commits under the fence
    target       the work on one backend: its queue, its passes
    link         its connection, and what is said of the target itself
    sweeps       regular looks at all of it, and samples
    passes       observe, plan, decide, record
    acting       steps: record, apply, record
    operations   one-shot requests
Pure:
    decisions    what to do with one key, given what is known
    schedule     when each key is looked at, and why it must wait
    workqueue    which keys are next
    attribution  whose event, and why
    backoff      when to try again
And the daemon's own small parts: catalogue (setting type → kind), desired (what is wanted, by target), secrets, clock,
supervisor.
"""
