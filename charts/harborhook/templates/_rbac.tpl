{{/* Rules that several roles share. */}}

{{/* What the operator does with the resources of tenants. Deletion and `spec` are theirs alone. */}}
{{- define "harborhook.resourceRules" -}}
- apiGroups: [harborhook.dev]
  resources: [hookendpoints, hooksubscriptions, hookreplays]
  verbs: [get, list, watch]
- apiGroups: [harborhook.dev]
  resources: [hookendpoints/status, hooksubscriptions/status, hookreplays/status]
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* A binding to the operator's account. Call with (list . KIND ROLE-KIND NAME NAMESPACE). */}}
{{- define "harborhook.operatorBinding" -}}
{{- $root := index . 0 -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ index . 1 }}
metadata:
  name: {{ index . 3 }}
  {{- with index . 4 }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "harborhook.labels" (list $root "operator") | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ index . 2 }}
  name: {{ index . 3 }}
subjects:
  - kind: ServiceAccount
    name: {{ include "harborhook.fullname" $root }}-operator
    namespace: {{ $root.Release.Namespace }}
{{- end -}}
