"""MinIO, and other S3 servers: buckets, policies, users, groups, access keys, server parameters.

Owned: of a bucket what its setting names; lifecycle and replication rules, notifications and tags by their ids and keys, so
that those of others in the same bucket stay; the remote buckets that its replication rules name. Of policies, users, groups
and access keys those that are declared; of a subsystem the parameters that are named. Not owned: objects, everything else.

Quirks (MinIO of 2026-02): changes of one bucket's documents lose each other when they are sent at once, though all are
acknowledged, so one bucket gets one call at a time. A PUT of versioning without its excluded prefixes drops them. An
update of an access key without its policy gives it all rights of its user. A disabled user is enabled again by a new
secret, unless the status goes with it. Order within policies is chance. Bucket policies bind only who isn't logged in. A
bucket has one remote at an endpoint, which goes with its last rule, and whose secret the export tells in clear.

Permissions: `s3:*` on the buckets; for everything but plain S3 also `admin:ExportBucketMetadata`, `admin:ExportIAM`,
`admin:ServerTrace`, `admin:SetBucketQuota`, `admin:GetBucketQuota`, `admin:SetBucketTarget`, `admin:GetBucketTarget`, the
`admin:*User*`, `admin:*Policy*`, `admin:*Group*` and `admin:*ServiceAccount*` actions, and `admin:ConfigUpdate`: in short
`consoleAdmin`. Without them the target is managed as a plain S3 server, and what that can't hold says `Unsupported`.
"""
