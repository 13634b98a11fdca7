"""The control plane daemon.

domain      pure decisions: the fold of the settings log, statuses, drift, dependencies, claims, events
log         the settings log and the journal: ports, codec, and their implementations
runtime     the controller: work queue, shards, targets, sweeps, operations
projection  the journal made searchable: documents, queries, stores
api         HTTP: routes, handlers, problems, the event stream
telemetry   metrics and logs
client      for applications: HTTP client, event stream, layered cache
devstack    real backends on this machine: find or install, start, probe, stop
cli         the `coreplane` command
app         composition root: what is started and stopped in which order
"""
