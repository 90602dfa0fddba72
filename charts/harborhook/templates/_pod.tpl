{{/* What every pod has in common. */}}

{{- define "harborhook.podSecurityContext" -}}
runAsNonRoot: true
{{- with .Values.podSecurity.userId }}
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "harborhook.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where pods may run. Call with (list . COMPONENT VALUES). */}}
{{- define "harborhook.placement" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if and $root.Values.topologySpread.enabled (ne (index . 1) "embedded") }}
topologySpreadConstraints:
  {{- $selector := include "harborhook.selector" (list $root (index . 1)) }}
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    # Of each revision by itself: a roll-out must not be spread by the pods that it replaces.
    matchLabelKeys: [pod-template-hash]
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Probes of the admin listener. To start a process again does not bring its database back: liveness asks less. */}}
{{- define "harborhook.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: {{ . }}}
  periodSeconds: 10
  timeoutSeconds: 3
readinessProbe:
  httpGet: {path: /readyz, port: {{ . }}}
  periodSeconds: 2
  timeoutSeconds: 3
{{- end -}}

{{/* The environment of every program. */}}
{{- define "harborhook.commonEnv" -}}
- {name: HARBORHOOK_LOG, value: {{ .Values.log.filter | quote }}}
- {name: HARBORHOOK_LOG_FORMAT, value: {{ .Values.log.format | quote }}}
- {name: HARBORHOOK_SEALING_KEY_FILE, value: /etc/harborhook/sealing}
{{- end -}}

{{/* The address policy, for all that plan or deliver. */}}
{{- define "harborhook.addressEnv" -}}
{{- with .Values.addressPolicy }}
- {name: HARBORHOOK_ALLOW_HTTP, value: {{ .allowHttp | quote }}}
{{- with .allowAddresses }}
- {name: HARBORHOOK_ALLOW_ADDRESS, value: {{ join "," . | quote }}}
{{- end }}
{{- with concat .clusterCidrs .denyAddresses }}
- {name: HARBORHOOK_DENY_ADDRESS, value: {{ join "," . | quote }}}
{{- end }}
{{- with .allowHosts }}
- {name: HARBORHOOK_ALLOW_HOST, value: {{ join "," . | quote }}}
{{- end }}
{{- with .allowPorts }}
- {name: HARBORHOOK_ALLOW_PORT, value: {{ join "," . | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* A variable from a Secret. Call with (list NAME VALUES). */}}
{{- define "harborhook.secretEnv" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef: {name: {{ (index . 1).existingSecret }}, key: {{ (index . 1).key }}}
{{- end -}}

{{- define "harborhook.databaseEnv" -}}
{{- if include "harborhook.distributed" . }}
{{- include "harborhook.secretEnv" (list "HARBORHOOK_DATABASE" .Values.postgres) }}
{{- else -}}
- {name: HARBORHOOK_DATABASE, value: "sqlite:/var/lib/harborhook/ledger.db"}
{{- end }}
{{- end -}}

{{- define "harborhook.queueEnv" -}}
{{- if include "harborhook.distributed" . }}
{{- include "harborhook.secretEnv" (list "HARBORHOOK_QUEUE" .Values.rabbitmq) }}
{{- else -}}
- {name: HARBORHOOK_QUEUE, value: "memory:"}
{{- end }}
{{- end -}}

{{/* Mounts of every container, and the volumes for them. */}}
{{- define "harborhook.commonMounts" -}}
- {name: sealing, mountPath: /etc/harborhook/sealing, readOnly: true}
{{- if .Values.tlsFiles.existingSecret }}
- {name: tls, mountPath: /etc/harborhook/tls, readOnly: true}
{{- end }}
{{- end -}}

{{- define "harborhook.commonVolumes" -}}
- name: sealing
  secret:
    secretName: {{ include "harborhook.sealingSecret" . }}
    defaultMode: 0440
{{- with .Values.tlsFiles.existingSecret }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end -}}
