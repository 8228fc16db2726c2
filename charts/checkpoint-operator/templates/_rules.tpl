{{/*
The controller's rights: exactly the verbs of its calls, no Secrets, no wildcards. A test of the repository reads these three
lists and compares them with the controller's own table of calls (API_CALLS), so they hold plain YAML and no template.
*/}}

{{/* What it does inside the namespaces that it serves. */}}
{{- define "checkpoint-operator.namespacedRules" -}}
- apiGroups: ["checkpoints.dev"]
  resources: ["checkpoints"]
  verbs: ["get", "list", "watch"]
- apiGroups: ["checkpoints.dev"]
  resources: ["checkpoints/status"]
  verbs: ["patch"]
# No call: owner references that block deletion need it on clusters with OwnerReferencesPermissionEnforcement.
- apiGroups: ["checkpoints.dev"]
  resources: ["checkpoints/finalizers"]
  verbs: ["update"]
# The workers.
- apiGroups: ["batch"]
  resources: ["jobs"]
  verbs: ["get", "list", "watch", "create", "delete"]
# Reports of workers, and who holds a claim that is a source.
- apiGroups: [""]
  resources: ["pods"]
  verbs: ["list", "watch"]
# Staging and target claims.
- apiGroups: [""]
  resources: ["persistentvolumeclaims"]
  verbs: ["get", "list", "watch", "create", "patch", "delete"]
# Why no pod came: quota, admission, a missing service account.
- apiGroups: [""]
  resources: ["events"]
  verbs: ["list"]
- apiGroups: ["events.k8s.io"]
  resources: ["events"]
  verbs: ["create", "patch"]
{{- end }}

{{/* What has no namespace: handing a filled volume from the staging claim to the target, and knowing the classes. */}}
{{- define "checkpoint-operator.clusterRules" -}}
- apiGroups: [""]
  resources: ["persistentvolumes"]
  verbs: ["get", "patch"]
- apiGroups: ["storage.k8s.io"]
  resources: ["storageclasses"]
  verbs: ["list", "watch"]
{{- end }}

{{/* Whose token a worker shows that tells its progress: a question about tokens that come to it, and no right to make any. */}}
{{- define "checkpoint-operator.progressRules" -}}
- apiGroups: ["authentication.k8s.io"]
  resources: ["tokenreviews"]
  verbs: ["create"]
{{- end }}
