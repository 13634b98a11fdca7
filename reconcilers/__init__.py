"""The services: what each owns, how it observes, plans and applies. One folder a service, five files each.

    contract   values, steps, outcomes, protocols: what a reconciler is (pure)
    planning   pure helpers that several planners need
    registry   the table of services
    cache      Redis and Memcached

A folder holds `__init__` (what is owned, quirks, permissions), `model` (observed values and canonical forms, pure),
`plan` (steps and planner, pure), `backend` (the only I/O) and `reconciler` (glue: the service's spec). Extra pure modules
are fine; extra I/O belongs behind `backend`. Retry, timeouts, events, metrics and logs are the controller's.
"""
