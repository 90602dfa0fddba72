{{/* Admission policies: what they are about, and their bindings. */}}

{{- define "harborhook.endpointMatch" -}}
resourceRules:
  - apiGroups: [harborhook.dev]
    apiVersions: ["*"]
    operations: [CREATE, UPDATE]
    resources: [hookendpoints]
{{- end -}}

{{/* Call with (list . NAME). */}}
{{- define "harborhook.policyBinding" -}}
{{- $root := index . 0 -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ index . 1 }}
  labels:
    {{- include "harborhook.labels" (list $root "admission") | nindent 4 }}
spec:
  policyName: {{ index . 1 }}
  validationActions: [Deny]
  {{- with $root.Values.watchNamespaces }}
  matchResources:
    namespaceSelector:
      matchExpressions:
        - key: kubernetes.io/metadata.name
          operator: In
          values:
            {{- toYaml . | nindent 12 }}
  {{- end }}
{{- end -}}
