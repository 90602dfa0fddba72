{{/* Where deliveries may go: the ranges that the dispatcher's own guard allows too. It decides by every address that a
     name resolves to; these rules stand behind it. */}}
{{- define "harborhook.deliveryEgress" -}}
{{- $policy := .Values.addressPolicy -}}
{{- $ports := list -}}
{{- if not (has "any" $policy.allowPorts) -}}
{{- $ports = concat (list 443 8443) $policy.allowPorts -}}
{{- if $policy.allowHttp -}}
{{- $ports = concat $ports (list 80 8080) -}}
{{- end -}}
{{- end -}}
{{- $except4 := list "0.0.0.0/8" "10.0.0.0/8" "100.64.0.0/10" "127.0.0.0/8" "169.254.0.0/16" "172.16.0.0/12" "192.168.0.0/16" "224.0.0.0/4" -}}
{{- $except6 := list "fc00::/7" "fe80::/10" "ff00::/8" -}}
{{- range concat $policy.clusterCidrs $policy.denyAddresses -}}
{{- if contains ":" . -}}
{{- $except6 = append $except6 . -}}
{{- else -}}
{{- $except4 = append $except4 . -}}
{{- end -}}
{{- end }}
- to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except:
          {{- range $except4 | uniq }}
          - {{ . }}
          {{- end }}
    - ipBlock:
        cidr: ::/0
        except:
          {{- range $except6 | uniq }}
          - {{ . }}
          {{- end }}
    {{- range $policy.allowAddresses }}
    - ipBlock:
        cidr: {{ . }}
    {{- end }}
  {{- with $ports }}
  ports:
    {{- range . | uniq }}
    - {port: {{ . }}}
    {{- end }}
  {{- end }}
{{- end -}}
