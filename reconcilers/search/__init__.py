"""Elasticsearch: indices and their migration, templates, pipelines, snapshots, security, suggesters, queries.

Owned: of an index the settings, fields and aliases that a `search.index` names, and its generations (`name-g7-1a2b3c4d`)
behind the alias that people use; other objects as whole documents, but for cluster settings, of which only named ones are
owned. Not owned: documents, fields that came by dynamic mapping or templates, reserved roles, the server's own indices.

Quirks (Elasticsearch 9.4.3; more beside the code that deals with them):
- The server canonicalises (`_index_template/_simulate`) and classifies changes (an empty, unallocated shadow index) itself;
  unknown keys are refused everywhere, so raw documents are passed on and nothing is typed here.
- Settings are compared as the strings they were sent as: the server doesn't canonicalise units.
- Fields can't be removed in place; `_source.enabled: false` is accepted in place and loses data: guarded.
- An alias with a missing name beside a valid action answers 200 with `errors: true`.
- A field's mapping is replaced as a whole by `put_mapping`; `_meta` too.

The state of a migration stands in `_meta.coreplane` of the generation that is being made, so that any replica can go on.

Permissions of the user in the target: cluster `manage` and `manage_security`, indices `all` on the managed names.
"""
