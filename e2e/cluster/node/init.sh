# PID 1 of the node. Every process, pod, mount, bridge and firewall rule of the cluster lives in its namespaces and ends
# with it: when one of the node's programs ends, and when the process that holds the other end of its standard input is
# gone, however that ended. What lies outside of the namespaces, the state folder and the control groups, it removes.
#
# usage: sh init.sh STATE CACHE CGROUP PATH
#   STATE  folder that becomes /var; what the programs read is in its `node`
#   CACHE  folder that becomes /run/cache; PATH begins with the folders in it that have the programs
#   CGROUP name of the node's control group in every hierarchy
set -eu
state=$1 cache=$2 cgroup=$3 PATH=$4

hierarchies() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo /sys/fs/cgroup; else echo /sys/fs/cgroup/*/; fi
}

end() {
    trap '' TERM EXIT
    kill -KILL -1 || :
    # It is this machine's as long as nothing is mounted on it.
    umount --lazy /var 2>/dev/null || :
    for hierarchy in $(hierarchies); do
        # A killed process leaves its group a moment later.
        tries=200
        while [ -d "$hierarchy/$cgroup" ] && [ "$tries" -gt 0 ]; do
            find "$hierarchy/$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.02
            tries=$((tries - 1))
        done
    done
    rm -rf "$state"
    exit 0
}
trap end TERM EXIT

# Starts a program of the node in the background.
run() {
    {
        exec 3<&-
        "$@" >"/var/log/$1" 2>&1 </dev/null || :
        echo "$1 ended:"
        tail -n 20 "/var/log/$1"
        kill -TERM 1
    } &
}

# From here on the end of the parent ends the node.
exec 3<&0
{ cat >/dev/null; kill -TERM 1; } <&3 &

mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/cache /run/lock
mount --bind "$cache" /run/cache
mkdir -p "$state/var/lib" "$state/var/log" "$state/var/tmp" "$state/var/cache"
ln -s /run "$state/var/run"
mount --bind "$state/var" /var
hostname node

for hierarchy in $(hierarchies); do
    mkdir "$hierarchy/$cgroup"
    # Version 1 gives a new group no processors and no memory nodes.
    for setting in cpuset.cpus cpuset.mems; do
        if [ -e "$hierarchy/$setting" ]; then cat "$hierarchy/$setting" >"$hierarchy/$cgroup/$setting"; fi
    done
done

ip link set lo up
ip link add cni0 type bridge
ip address add 10.244.0.1/24 dev cni0
ip link set cni0 up
ip route add default dev cni0
echo 1 >/proc/sys/net/ipv4/ip_forward

node=/var/node
run containerd --config "$node/containerd.toml"
run etcd --data-dir /var/lib/etcd --unsafe-no-fsync --log-level warn
run kube-apiserver \
    --advertise-address=10.244.0.1 \
    --allow-privileged=true \
    --authorization-mode=Node,RBAC \
    --client-ca-file="$node/ca.crt" \
    --enable-admission-plugins=NodeRestriction \
    --etcd-servers=http://127.0.0.1:2379 \
    --kubelet-client-certificate="$node/admin.crt" \
    --kubelet-client-key="$node/admin.key" \
    --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$node/service-account.pub" \
    --service-account-signing-key-file="$node/service-account.key" \
    --service-cluster-ip-range=10.96.0.0/16 \
    --tls-cert-file="$node/apiserver.crt" \
    --tls-private-key-file="$node/apiserver.key"
run kube-scheduler --kubeconfig="$node/admin.conf" --leader-elect=false

until [ -S /run/containerd/containerd.sock ]; do sleep 0.02; done
ctr --namespace k8s.io images import "$node/pause.tar" >/var/log/pause
run kubelet --config="$node/kubelet.yaml" --kubeconfig="$node/kubelet.conf" --cgroup-root="/$cgroup" \
    --hostname-override=node --node-ip=10.244.0.1
run kube-proxy --kubeconfig="$node/admin.conf" --proxy-mode=nftables --hostname-override=node \
    --cluster-cidr=10.244.0.0/16 --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 \
    --conntrack-tcp-timeout-close-wait=0
run coredns -conf "$node/Corefile"
# It ends when the API server is not healthy within 20 seconds, which on a busy machine it may not be.
until kubectl --kubeconfig="$node/admin.conf" get --raw /healthz >/dev/null 2>&1; do sleep 0.1; done
run kube-controller-manager \
    --cluster-signing-cert-file="$node/ca.crt" \
    --cluster-signing-key-file="$node/ca.key" \
    --kubeconfig="$node/admin.conf" \
    --leader-elect=false \
    --root-ca-file="$node/ca.crt" \
    --service-account-private-key-file="$node/service-account.key" \
    --use-service-account-credentials
wait
