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
{{/* What is not public, as the guard has it. */}}
{{- $special4 := list "0.0.0.0/8" "10.0.0.0/8" "100.64.0.0/10" "127.0.0.0/8" "168.63.129.16/32" "169.254.0.0/16" "172.16.0.0/12" "192.0.0.0/24" "192.0.2.0/24" "192.31.196.0/24" "192.52.193.0/24" "192.88.99.0/24" "192.168.0.0/16" "192.175.48.0/24" "198.18.0.0/15" "198.51.100.0/24" "203.0.113.0/24" "224.0.0.0/4" "240.0.0.0/4" -}}
{{- $special6 := list "64:ff9b:1::/48" "2001::/23" "2001:db8::/32" "2002::/16" "2620:4f:8000::/48" "3fff::/20" "fc00::/7" "fe80::/10" "fec0::/10" "ff00::/8" -}}
{{/* What serves credentials to whoever asks from inside: a range around it that is allowed is allowed for other reasons. */}}
{{- $metadata := list "100.100.100.200/32" "168.63.129.16/32" "169.254.169.254/32" "169.254.170.2/32" "169.254.170.23/32" "192.0.0.192/32" -}}
{{- $denied := concat $policy.clusterCidrs $policy.denyAddresses -}}
{{- $denied4 := list -}}
{{- $denied6 := list -}}
{{- range $denied -}}
{{- if contains ":" . -}}
{{- $denied6 = append $denied6 . -}}
{{- else -}}
{{- $denied4 = append $denied4 . -}}
{{- end -}}
{{- end }}
- to:
    {{- include "harborhook.ipBlock" (list "0.0.0.0/0" (concat $special4 $denied4)) | nindent 4 }}
    {{- include "harborhook.ipBlock" (list "::/0" (concat $special6 $denied6)) | nindent 4 }}
    {{- range $allowed := $policy.allowAddresses }}
    {{- if contains ":" $allowed }}
    {{- include "harborhook.ipBlock" (list $allowed list) | nindent 4 }}
    {{- else }}
    {{- $is_denied := has $allowed $denied4 }}
    {{- $except := list }}
    {{- range $denied4 }}
    {{- if include "harborhook.isWithin" (list $allowed .) }}{{ $is_denied = true }}{{ end }}
    {{- end }}
    {{- range concat $denied4 $metadata }}
    {{- if include "harborhook.isWithin" (list . $allowed) }}{{ $except = append $except . }}{{ end }}
    {{- end }}
    {{- if not $is_denied }}
    {{- include "harborhook.ipBlock" (list $allowed $except) | nindent 4 }}
    {{- end }}
    {{- end }}
    {{- end }}
  {{- with $ports }}
  ports:
    {{- range . | uniq }}
    - {port: {{ . }}}
    {{- end }}
  {{- end }}
{{- end -}}

{{/* A range without others. Call with (list RANGE EXCEPTIONS). */}}
{{- define "harborhook.ipBlock" -}}
- ipBlock:
    cidr: {{ index . 0 }}
    {{- with index . 1 }}
    except:
      {{- range uniq . }}
      - {{ . }}
      {{- end }}
    {{- end }}
{{- end -}}

{{/* "true" if a range of IPv4 is a part of another one, and not all of it. Call with (list INNER OUTER). */}}
{{- define "harborhook.isWithin" -}}
{{- $inner := splitList "/" (index . 0) -}}
{{- $outer := splitList "/" (index . 1) -}}
{{- $bits := atoi (last $outer) -}}
{{- if gt (atoi (last $inner)) $bits -}}
{{- if eq (include "harborhook.firstBits" (list (first $inner) $bits)) (include "harborhook.firstBits" (list (first $outer) $bits)) -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The first bits of an address of IPv4, as a number. Call with (list ADDRESS BITS). */}}
{{- define "harborhook.firstBits" -}}
{{- $number := 0 -}}
{{- range splitList "." (index . 0) -}}
{{- $number = add (mul $number 256) (atoi .) -}}
{{- end -}}
{{- range until (int (sub 32 (index . 1))) -}}
{{- $number = div $number 2 -}}
{{- end -}}
{{- $number -}}
{{- end -}}
