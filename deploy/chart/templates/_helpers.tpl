{{- define "name" -}}
{{ .Release.Name }}-metrics
{{- end }}

{{- define "labels" -}}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "subjects" -}}
subjects:
  - kind: ServiceAccount
    name: {{ include "name" . }}
    namespace: {{ .Release.Namespace }}
{{- end }}
