"""What is said over the wire: settings, events, metrics and change records, as Pydantic models.

Here belong the public data model and the JSON Schemas generated from it (`json/`, checked in). Nothing here knows the
daemon or a backend, and nothing but `generate` touches a file.

    names     keys, name rules, ids, timestamps            record   the change request in the settings log
    setting   declarations, policies, settings, statuses   secret   references to secrets
    event     InfrastructureEvent                          metric   InfrastructureMetric
    cache     the values of the cache service's kinds      kinds    setting type → value model, the one table
    cache_layout   key names that applications and the daemon share
    generate  models → json/                               compatibility   what a newer schema no longer allows
"""
