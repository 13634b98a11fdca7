"""Redis and Memcached: parameters, users, namespaces, invalidation.

Owned: on Redis the parameters that a `cache.redis_config` names, and whole users that a `cache.redis_user` names (what is left
out of one is owned as empty, but for passwords: not declared at all, they are somebody else's affair). On Memcached the
settings that a `cache.memcached_config` names. Of a namespace its registration. Not owned: everything else on the
server: other parameters and users, keys, replication, persistence on disk, the ACL file (the target's `save_acl` has it
written after each change). Retiring parameters or settings leaves their values: nobody knows what they were before.

Quirks (Redis 7.0.15, Memcached 1.6.18; more beside the code that deals with them):
- `ACL SETUSER` only ever adds, so users are always made from scratch, at once; `CONFIG SET` takes all or none.
- A user that is switched off, or loses a password, keeps its sessions: they are ended (`kill_on_revoke`).
- Neither administers with a signal; counters of commands and the run id tell. Nothing survives a restart that isn't saved.
- CONFIG and ACL are per node and not replicated: every node of a target is driven by itself.
- Memcached takes the item size at its start only, and answers some refusals with words of their own.

Permissions of the Redis user in the target: +acl +config|get +config|set +config|rewrite +info +client|kill +slowlog|len
+client|setname +multi +exec +ping; for namespaces also +@read +@write +@scripting +scan +randomkey +dbsize
+memory|usage +object on the namespaces' keys and `coreplane:namespace*`; without namespaces no key is needed.
`ACL SETUSER` can grant anything, so whoever has this login has the server.
"""
