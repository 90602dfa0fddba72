{{/* Names, labels and the mode. */}}

{{/* What all names begin with. The pod of a StatefulSet carries its name and a revision in a label of at most 63 bytes. */}}
{{- define "harborhook.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if .Values.fullnameOverride -}}
{{- $full = .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- $full = .Release.Name -}}
{{- end -}}
{{- $full | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* "true" if PostgreSQL and RabbitMQ are named, else empty. */}}
{{- define "harborhook.distributed" -}}
{{- if .Values.postgres.existingSecret }}true{{ end -}}
{{- end -}}

{{/* What a pod is selected by. Call with (list . COMPONENT). */}}
{{- define "harborhook.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: harborhook
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object. Call with (list . COMPONENT). */}}
{{- define "harborhook.labels" -}}
{{- $root := index . 0 -}}
{{ include "harborhook.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Labels of a pod that is not the chart's version's: what every roll-out would change stays out. Call with (list . COMPONENT VALUES). */}}
{{- define "harborhook.podLabels" -}}
{{ include "harborhook.selector" (list (index . 0) (index . 1)) }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
{{- with (index . 2).podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "harborhook.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "harborhook.sealingSecret" -}}
{{- .Values.sealingKey.existingSecret | default (printf "%s-sealing-key" (include "harborhook.fullname" .)) -}}
{{- end -}}

{{- define "harborhook.leaseName" -}}
{{- .Values.operator.leaseName | default (printf "%s-operator" (include "harborhook.fullname" .)) -}}
{{- end -}}

{{/* The workload that serves the API: "ingest", or "embedded" where one pod does everything. */}}
{{- define "harborhook.apiComponent" -}}
{{- if include "harborhook.distributed" . }}ingest{{ else }}embedded{{ end -}}
{{- end -}}
