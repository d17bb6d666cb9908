#!/bin/sh
# docker-walls.sh [NETWORK…]: closes a Docker host to the instances on it, whatever its engine's own firewall does.
#
# What an instance begins is dropped if it goes to the host itself (its services, and the ports that other instances
# publish there), to another instance, to a cloud's metadata, or to one of the NETWORKs, such as 10.0.0.0/8. It still
# reaches everything else and answers whoever calls it. Needs root; a firewall keeps it until the next boot, so let
# the system run it at each. Twice does no harm.
set -eu

# wall FAMILY ADDRESS…: by iptables or ip6tables, before the rules of any engine.
wall() {
    family=$1
    shift
    "$family" -t mangle -N TIR-WALLS 2>/dev/null || "$family" -t mangle -F TIR-WALLS
    "$family" -t mangle -A TIR-WALLS -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
    if [ "$family" = ip6tables ]; then # without it no neighbour is found
        "$family" -t mangle -A TIR-WALLS -p icmpv6 -j RETURN
    fi
    "$family" -t mangle -A TIR-WALLS -m addrtype --dst-type LOCAL -j DROP
    for address in "$@"; do
        "$family" -t mangle -A TIR-WALLS -d "$address" -j DROP
    done
    once "$family" PREROUTING -i tir-+ -j TIR-WALLS
    once "$family" FORWARD -i tir-+ -o tir-+ -j DROP
}

once() {
    family=$1
    shift
    "$family" -t mangle -C "$@" 2>/dev/null || "$family" -t mangle -A "$@"
}

four="169.254.0.0/16 168.63.129.16 100.100.100.200"
six="fd00:ec2::254"
for each in "$@"; do
    case $each in
        *:*) six="$six $each" ;;
        *) four="$four $each" ;;
    esac
done
# shellcheck disable=SC2086  # words
wall iptables $four
if [ -e /proc/net/if_inet6 ]; then
    # shellcheck disable=SC2086  # words
    wall ip6tables $six
fi

# Without this the kernel passes what two containers of one bridge send each other by all firewalls.
modprobe br_netfilter 2>/dev/null || true
for family in iptables ip6tables; do
    echo 1 >"/proc/sys/net/bridge/bridge-nf-call-$family"
done
