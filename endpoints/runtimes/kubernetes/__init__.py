"""Instances as pods of a Kubernetes cluster: one Deployment per revision, in one namespace.

Who an instance is. The planner counts ends: each must show once, with its code and its words, under a name of its
own. A pod's containers, however, are started again in the same pod by the kubelet. So an instance is one *life* of
a pod: the first life is named like the pod, the second `<pod>.1`, and so on, the number being the restarts that
the API counts. The life before the present one is the last whose end the API still tells; it shows as exited until
`forget`, which is written down as an annotation of the pod.

Who starts again. The kubelet may do so at once, as it does after a first crash or one after a long time: the model
is in the pod already, and it works while the console is away. Where the kubelet would make the pod wait
(CrashLoopBackOff), the pod counts as ended: the planner's own pace and budget decide, its next `apply` puts a new
pod in its place, and `forget` takes the pod away for good, which is what stops a loop that was given up.

How many there are. `replicas` belongs to a field manager of its own and is forced: it is the console's alone. What
a pod looks like is written only while a revision has no replicas, so that no upgrade of ours rolls what serves.

Who goes. A ReplicaSet removes unready pods before ready ones, whatever their pod-deletion-cost says. The cost
therefore decides only where it can; else the pods are deleted by name before the number falls. See `removal`.

A pod that is being deleted runs until it is gone. Gone ones are not in the answer.
"""
