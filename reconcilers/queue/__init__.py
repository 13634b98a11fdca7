"""Kafka: topics, users, permissions, quotas, groups, routes.

Owned: of a topic what its `queue.topic` declares: the number of partitions, the replication factor, the named
configurations (one that is no longer named goes back to the cluster's default). Not owned: everything else: other topics
and configurations, messages, Kafka's own topics. Retiring a topic leaves it, with its messages, unless `deletion: delete`.

Quirks (Kafka 4.3.1, kafka-python 3.0.12; more beside the code that deals with them):
- Replies come from the controller, what is read from a broker's image of its metadata, which lags by up to half a minute
  after a thousand creations. So what we did ourselves is *settling* until the image shows it: no drift, no second create.
- One request carries many objects and each fails by itself; the client's helpers hide that, so replies are read raw.
- Deleting by id, not by name, can't hit a topic that somebody made anew meanwhile.
- Partitions become more, never fewer. Another replication factor is a reassignment, which takes its time.
- The client is synchronous: it lives in a thread of its own (`admin`).

Permissions of the target's user: on the cluster alter, alter_configs, create, describe, describe_configs; on all topics
alter, alter_configs, create, delete, describe, describe_configs. Whoever may alter the cluster may grant itself anything.
"""
