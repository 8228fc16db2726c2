{{/* The chart's name, or what replaces it. */}}
{{- define "checkpoint-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of namespaced objects: Services and labels take at most 63 characters and no dot, which release names may have. */}}
{{- define "checkpoint-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | replace "." "-" | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | replace "." "-" | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The name of cluster-scoped objects: with the namespace, because releases of the same name may live in several. What does
not fit is cut, and told apart by a hash of the whole. Takes (dict "context" $ "suffix" "-view").
*/}}
{{- define "checkpoint-operator.clusterName" -}}
{{- $base := printf "%s-%s" (include "checkpoint-operator.fullname" .context) .context.Release.Namespace }}
{{- $room := sub 63 (len .suffix) | int }}
{{- if gt (len $base) $room }}
{{- $base = printf "%s-%s" ($base | trunc (sub $room 9 | int) | trimSuffix "-") ($base | sha256sum | trunc 8) }}
{{- end }}
{{- printf "%s%s" $base .suffix }}
{{- end }}

{{/* The name of the controller's service account. */}}
{{- define "checkpoint-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "checkpoint-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* What selects the controller's pod; a Deployment's selector can never change. */}}
{{- define "checkpoint-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "checkpoint-operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | quote }}
{{- end }}

{{/* Labels of every object. The chart's own win over commonLabels, so that selectors keep working. */}}
{{- define "checkpoint-operator.labels" -}}
{{- $own := dict
  "app.kubernetes.io/component" "controller"
  "app.kubernetes.io/managed-by" .Release.Service
  "app.kubernetes.io/part-of" "checkpoint-operator"
  "app.kubernetes.io/version" (.Chart.AppVersion | trunc 63)
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
}}
{{- $selector := include "checkpoint-operator.selectorLabels" . | fromYaml }}
{{- toYaml (mergeOverwrite (dict) .Values.commonLabels $own $selector) }}
{{- end }}

{{/* The image of the controller and of its workers. */}}
{{- define "checkpoint-operator.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag }}
{{- if .Values.image.digest }}
{{- printf "%s:%s@%s" .Values.image.repository $tag .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository $tag }}
{{- end }}
{{- end }}

{{/*
Defaults of spec.worker as the controller reads them: JSON without empty members. The kubelet would expand $(NAME) in
arguments; a doubled dollar sign stands for one.
*/}}
{{- define "checkpoint-operator.workerDefaults" -}}
{{- $defaults := dict }}
{{- range $name, $value := .Values.worker }}
{{- if $value }}
{{- $_ := set $defaults $name $value }}
{{- end }}
{{- end }}
{{- range $name := list "runAsUser" "fsGroup" }}
{{- if hasKey $defaults $name }}
{{- $_ := set $defaults $name (int64 (get $defaults $name)) }}
{{- end }}
{{- end }}
{{- $defaults | toJson | replace "$(" "$$(" }}
{{- end }}

{{/* Where workers tell how far they are. The name of the Service is completed by the resolver of each pod. */}}
{{- define "checkpoint-operator.progressUrl" -}}
{{- $service := printf "http://%s.%s.svc:%d" (include "checkpoint-operator.fullname" .) .Release.Namespace (int64 .Values.progress.port) }}
{{- default $service .Values.progress.url }}
{{- end }}
