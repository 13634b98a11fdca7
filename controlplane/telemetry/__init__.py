"""What the daemon tells those who run it. Nothing here decides anything.

    logs       the structlog chain, its fixed key names, and what is withheld from every line
    metrics    every Prometheus metric: one table, one object with a registry of its own
    samples    the values sampled from backends, as one Prometheus family of bounded size

Events, statuses and sampled metrics of the data model belong to the journal, not here.
"""
