{{/* The containers: one for the control plane, one for the data plane in its three roles. */}}

{{/* The operator's container. It alone sees an API token. */}}
{{- define "harborhook.operatorContainer" -}}
- name: operator
  image: {{ include "harborhook.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [operator]
  args: [run]
  env:
    {{- include "harborhook.commonEnv" . | nindent 4 }}
    {{- include "harborhook.databaseEnv" . | nindent 4 }}
    {{- include "harborhook.addressEnv" . | trim | nindent 4 }}
    - {name: HARBORHOOK_ADMIN_LISTEN, value: "{{ .Values.listenAddress }}:8082"}
    - {name: HARBORHOOK_LEASE_NAME, value: {{ include "harborhook.leaseName" . | quote }}}
    - name: HARBORHOOK_NAMESPACE
      valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
    - name: HARBORHOOK_IDENTITY
      valueFrom: {fieldRef: {fieldPath: metadata.name}}
    {{- with .Values.watchNamespaces }}
    - {name: HARBORHOOK_WATCH_NAMESPACE, value: {{ join "," . | quote }}}
    {{- end }}
    {{- if include "harborhook.watchSecrets" . }}
    - {name: HARBORHOOK_WATCH_SECRETS, value: "true"}
    {{- end }}
    {{- with .Values.access.serviceAccountScopes }}
    - {name: HARBORHOOK_SERVICE_ACCOUNT_SCOPES, value: {{ join "," . | quote }}}
    {{- end }}
    {{- with .Values.access.serviceAccountGrants }}
    - {name: HARBORHOOK_SERVICE_ACCOUNT_GRANT, value: {{ join "," . | quote }}}
    {{- end }}
    {{- with .Values.operator.resyncSeconds }}
    - {name: HARBORHOOK_RESYNC_SECONDS, value: {{ . | quote }}}
    {{- end }}
    {{- if include "harborhook.distributed" . }}
    {{- with .Values.dispatcher }}
    - {name: HARBORHOOK_POOL_DEPLOYMENT, value: {{ printf "%s-dispatcher-default" (include "harborhook.fullname" $) | quote }}}
    - {name: HARBORHOOK_POOL_SCALING, value: {{ .scaling.mode | quote }}}
    - {name: HARBORHOOK_POOL_MIN_REPLICAS, value: {{ .minReplicas | quote }}}
    - {name: HARBORHOOK_POOL_MAX_REPLICAS, value: {{ .maxReplicas | quote }}}
    - {name: HARBORHOOK_POOL_DRAIN_TARGET_SECONDS, value: {{ .scaling.drainTargetSeconds | quote }}}
    - {name: HARBORHOOK_POOL_STABILIZATION_SECONDS, value: {{ .scaling.stabilizationSeconds | quote }}}
    {{- end }}
    {{- end }}
  ports:
    - {name: operator-admin, containerPort: 8082}
  {{- include "harborhook.probes" "operator-admin" | nindent 2 }}
  {{- with .Values.operator.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "harborhook.containerSecurityContext" . | nindent 4 }}
  volumeMounts:
    {{- include "harborhook.commonMounts" . | nindent 4 }}
    - {name: api-token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
    {{- if not (include "harborhook.distributed" .) }}
    - {name: ledger, mountPath: /var/lib/harborhook}
    {{- end }}
{{- end -}}

{{/* "true" if the operator watches Secrets: in all of the namespaces that it serves, by name, or in none. */}}
{{- define "harborhook.watchSecrets" -}}
{{- $watched := list -}}
{{- range .Values.tenants -}}
{{- if .watchSecrets -}}
{{- $watched = append $watched .namespace -}}
{{- end -}}
{{- end -}}
{{- if $watched -}}
{{- if ne (sortAlpha $watched | join ",") (sortAlpha .Values.watchNamespaces | join ",") -}}
{{- fail "tenants: watchSecrets is for all of watchNamespaces or for none; allSecrets lets the operator read without watching" -}}
{{- end -}}
true
{{- end -}}
{{- end -}}

{{/* The token of the operator's account, for one container instead of the whole pod. */}}
{{- define "harborhook.tokenVolume" -}}
- name: api-token
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
      - downwardAPI:
          items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]
{{- end -}}

{{/* A container of the data plane. Call with (list . ROLE VALUES); ROLE is ingest, deliver or all. */}}
{{- define "harborhook.dispatcherContainer" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $values := index . 2 -}}
{{- $serves := ne $role "deliver" -}}
- name: {{ ternary "ingest" "dispatcher" (eq $role "ingest") }}
  image: {{ include "harborhook.image" $root }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  command: [dispatcher]
  args: [{{ $role }}]
  env:
    {{- include "harborhook.commonEnv" $root | nindent 4 }}
    {{- include "harborhook.databaseEnv" $root | nindent 4 }}
    {{- include "harborhook.queueEnv" $root | nindent 4 }}
    - {name: HARBORHOOK_ADMIN_LISTEN, value: "{{ $root.Values.listenAddress }}:8081"}
    - {name: HARBORHOOK_RETENTION_DAYS, value: {{ $root.Values.retentionDays | quote }}}
    - {name: HARBORHOOK_DRAIN_SECONDS, value: {{ $root.Values.drainSeconds | quote }}}
    {{- if $serves }}
    - {name: HARBORHOOK_LISTEN, value: "{{ $root.Values.listenAddress }}:8080"}
    - {name: HARBORHOOK_ACCESS, value: tokens}
    {{- if $root.Values.access.issuers }}
    - {name: HARBORHOOK_ISSUERS_FILE, value: /etc/harborhook/access/issuers.json}
    {{- end }}
    {{- end }}
    {{- if ne $role "ingest" }}
    - {name: HARBORHOOK_POOL, value: default}
    {{- include "harborhook.addressEnv" $root | trim | nindent 4 }}
    {{- end }}
  ports:
    {{- if $serves }}
    - {name: api, containerPort: 8080}
    {{- end }}
    - {name: admin, containerPort: 8081}
  {{- include "harborhook.probes" "admin" | nindent 2 }}
  {{- if $serves }}
  lifecycle:
    # Whoever routes requests here learns of the stop meanwhile.
    preStop: {sleep: {seconds: 5}}
  {{- end }}
  {{- with $values.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "harborhook.containerSecurityContext" $root | nindent 4 }}
  volumeMounts:
    {{- include "harborhook.commonMounts" $root | nindent 4 }}
    {{- if and $serves $root.Values.access.issuers }}
    - {name: access, mountPath: /etc/harborhook/access, readOnly: true}
    {{- end }}
    {{- if eq $role "all" }}
    - {name: ledger, mountPath: /var/lib/harborhook}
    {{- end }}
{{- end -}}

{{- define "harborhook.accessVolume" -}}
{{- if .Values.access.issuers }}
- name: access
  configMap:
    name: {{ include "harborhook.fullname" . }}-issuers
{{- end }}
{{- end -}}

{{/* Seconds that a pod may take to stop: what the program takes, the pause before it, and a reserve. */}}
{{- define "harborhook.gracePeriod" -}}
{{- add .Values.drainSeconds 10 -}}
{{- end -}}
