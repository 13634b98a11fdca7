{{- define "coreplane.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Names of objects; the pod's is this with "-0", and must fit a label. */}}
{{- define "coreplane.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := include "coreplane.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- $full | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "coreplane.selectorLabels" -}}
app.kubernetes.io/name: {{ include "coreplane.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: daemon
{{- end }}

{{- define "coreplane.testLabels" -}}
app.kubernetes.io/name: {{ include "coreplane.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end }}

{{- define "coreplane.labels" -}}
{{ include "coreplane.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "coreplane.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "coreplane.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "coreplane.claimName" -}}
{{- .Values.persistence.existingClaim | default (include "coreplane.fullname" .) }}
{{- end }}

{{- define "coreplane.image" -}}
{{- $image := .Values.image }}
{{- if not $image.repository }}
{{- fail "image.repository is required: no image is published; build the chart's Containerfile, push it, and name it here" }}
{{- end }}
{{- if $image.digest }}
{{- printf "%s@%s" $image.repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $image.repository ($image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* "true" when the replicas share a log. */}}
{{- define "coreplane.shared" -}}
{{- $url := dig "log" "url" "" .Values.config | default "" }}
{{- if and $url (not (hasPrefix "kafka://" $url)) }}
{{- fail "config.log.url must be empty or begin with kafka://: the place of the log in a file is the chart's" }}
{{- end }}
{{- if $url }}true{{ end }}
{{- end }}

{{- define "coreplane.replicasName" -}}
{{ include "coreplane.fullname" . }}-replicas
{{- end }}

{{/* How many pods: several only if they share what each needs to know. */}}
{{- define "coreplane.replicas" -}}
{{- if include "coreplane.shared" . }}
{{- if not (dig "secrets" "fingerprint_key" nil .Values.config) }}
{{- fail "config.secrets.fingerprint_key is required with Kafka: else each replica sets anew what another one wrote and what can't be read back" }}
{{- end }}
{{- if .Values.persistence.existingClaim }}
{{- fail "persistence.existingClaim is of one pod: with Kafka as the log there is no volume" }}
{{- end }}
{{- else if gt (int .Values.replicaCount) 1 }}
{{- fail "replicaCount above 1 needs config.log.url: kafka://…; the log in a file is of one process" }}
{{- end }}
{{- .Values.replicaCount }}
{{- end }}

{{- define "coreplane.dataDir" -}}
/var/lib/coreplane
{{- end }}

{{/* coreplane.yaml: the values, and over them what the chart decides. */}}
{{- define "coreplane.config" -}}
{{- if not (dig "auth" "tokens" list .Values.config) }}
{{- fail "config.auth.tokens is required: without tokens the daemon refuses to listen beyond loopback; give at least one {name, sha256, role}" }}
{{- end }}
{{- $projection := dig "projection" "url" "" .Values.config | default "" }}
{{- if not (or (eq $projection "") (hasPrefix "http://" $projection) (hasPrefix "https://" $projection)) }}
{{- fail "config.projection.url must be empty or the URL of an Elasticsearch: the place of the one in a file is the chart's" }}
{{- end }}
{{- toYaml (mergeOverwrite (deepCopy .Values.config) (.Files.Get "files/fixed.yaml" | fromYaml)) }}
{{- end }}

{{/* Seconds until SIGKILL: effects that are cut off end as *unknown* and hold their settings back. */}}
{{- define "coreplane.grace" -}}
{{- $needed := addf (float64 (dig "runtime" "shutdown_timeout_s" 10 .Values.config)) 15.0 }}
{{- if lt (float64 .Values.terminationGracePeriodSeconds) $needed }}
{{- fail (printf "terminationGracePeriodSeconds must be at least %v: config.runtime.shutdown_timeout_s and 15 s for what comes before and after" $needed) }}
{{- end }}
{{- .Values.terminationGracePeriodSeconds }}
{{- end }}

{{/* "true" when some token reaches every tenant, as the metrics ask for. */}}
{{- define "coreplane.someTokenReachesAll" -}}
{{- $tenants := .Values.config.tenants | default (list "default") }}
{{- range $token := .Values.config.auth.tokens }}
{{- $reach := $token.tenants | default (ternary (list) (list "*") (hasKey $token "tenants")) }}
{{- $missing := list }}
{{- range $tenant := $tenants }}
{{- if not (has $tenant $reach) }}{{ $missing = append $missing $tenant }}{{ end }}
{{- end }}
{{- if or (has "*" $reach) (not $missing) }}true{{ end }}
{{- end }}
{{- end }}
