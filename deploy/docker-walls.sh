#!/bin/sh
# docker-walls.sh [NETWORK…]: closes a Docker host to the instances on it, whatever its engine's own firewall does.
#
# What an instance begins is dropped if it goes to the host itself (its services, and the ports that other instances
# publish there), to another instance, to a cloud's metadata, or to one of the NETWORKs, such as 10.0.0.0/8. It still
# reaches everything else and answers whoever calls it. Needs root; a firewall keeps it until the next boot, so let
# the system run it at each. Twice does no harm.
set -eu

# Without this the kernel passes what two containers of one bridge send each other by all firewalls.
modprobe br_netfilter 2>/dev/null || true
for family in iptables ip6tables; do
    echo 1 >"/proc/sys/net/bridge/bridge-nf-call-$family"
done

begin() {
    "$1" -t mangle -N TIR-WALLS 2>/dev/null || "$1" -t mangle -F TIR-WALLS
    "$1" -t mangle -A TIR-WALLS -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
}

shut() {
    family=$1
    shift
    "$family" -t mangle -A TIR-WALLS "$@" -j DROP
}

hang_up() {
    for where in "PREROUTING -i tir-+ -j TIR-WALLS" "FORWARD -i tir-+ -o tir-+ -j DROP"; do
        # shellcheck disable=SC2086  # words
        "$1" -t mangle -C $where 2>/dev/null || "$1" -t mangle -A $where
    done
}

begin iptables
shut iptables -m addrtype --dst-type LOCAL
for each in 169.254.0.0/16 168.63.129.16 100.100.100.200; do
    shut iptables -d "$each"
done
begin ip6tables
ip6tables -t mangle -A TIR-WALLS -p icmpv6 -j RETURN
shut ip6tables -m addrtype --dst-type LOCAL
shut ip6tables -d fd00:ec2::254
for each in "$@"; do
    case $each in
        *:*) shut ip6tables -d "$each" ;;
        *) shut iptables -d "$each" ;;
    esac
done
hang_up iptables
hang_up ip6tables
