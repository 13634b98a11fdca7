"""The daemon at work: what follows the log, drives the backends and keeps them there. Generic over services.

    replica      the folded settings log and the answers to writes        (every replica)
    statuses     the last status of every key                             (every replica)
    shards       the right to act: takeover, commits under the fence      (shard owner)
    controller   shards → targets; what the fold says → keys to look at   (shard owner)
    target       one backend: observe, plan, apply; sweeps, hints, samples (shard owner)
    decisions    what to do with one key, given what is known             (pure)
    workqueue    which keys are next                                      (pure)
    backoff      when to try again                                        (pure)
    catalogue    setting type → service and kind
    operations   one-shot requests
    secrets, clock, supervisor: the daemon's own small parts
"""
