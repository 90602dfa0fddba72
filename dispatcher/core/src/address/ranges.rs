//! Addresses with a special purpose: the union of the IANA registries of both families
//! (<https://www.iana.org/assignments/iana-ipv4-special-registry>, <https://www.iana.org/assignments/iana-ipv6-special-registry>),
//! whether or not an entry says "globally reachable", multicast, what is not assigned, and the metadata services of
//! clouds that stand outside of these ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::AddressErrorReason as Reason;

/// Single addresses at which clouds serve credentials and secrets to whoever asks from inside.
const METADATA_V4: [Ipv4Addr; 6] = [
    // AWS, Azure, Google Cloud, OpenStack, DigitalOcean and most others.
    Ipv4Addr::new(169, 254, 169, 254),
    // AWS: credentials of ECS tasks, and of EKS pods.
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    // Alibaba Cloud.
    Ipv4Addr::new(100, 100, 100, 200),
    // Azure's WireServer: a public address that every virtual machine reaches its host by.
    Ipv4Addr::new(168, 63, 129, 16),
    // Oracle Cloud.
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: [Ipv6Addr; 5] = [
    // AWS: instance metadata, and credentials of EKS pods.
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    // Google Cloud.
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    // OpenStack.
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    // Scaleway.
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

const LOOPBACK_V4: Ipv4Net = v4(127, 0, 0, 0, 8);
const LOOPBACK_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);

const SPECIAL_V4: [(Ipv4Net, Reason); 20] = [
    (v4(0, 0, 0, 0, 32), Reason::Unspecified),
    (v4(0, 0, 0, 0, 8), Reason::Reserved),
    (v4(10, 0, 0, 0, 8), Reason::Private),
    (v4(100, 64, 0, 0, 10), Reason::SharedAddressSpace),
    (LOOPBACK_V4, Reason::Loopback),
    (v4(169, 254, 0, 0, 16), Reason::LinkLocal),
    (v4(172, 16, 0, 0, 12), Reason::Private),
    (v4(192, 0, 0, 0, 24), Reason::Reserved),
    (v4(192, 0, 2, 0, 24), Reason::Documentation),
    // AS112 and automatic multicast tunnelling: anycast services of networks, not hosts of receivers.
    (v4(192, 31, 196, 0, 24), Reason::Reserved),
    (v4(192, 52, 193, 0, 24), Reason::Reserved),
    (v4(192, 88, 99, 0, 24), Reason::Transition),
    (v4(192, 168, 0, 0, 16), Reason::Private),
    (v4(192, 175, 48, 0, 24), Reason::Reserved),
    (v4(198, 18, 0, 0, 15), Reason::Documentation),
    (v4(198, 51, 100, 0, 24), Reason::Documentation),
    (v4(203, 0, 113, 0, 24), Reason::Documentation),
    (v4(224, 0, 0, 0, 4), Reason::Multicast),
    (v4(240, 0, 0, 0, 4), Reason::Reserved),
    (v4(255, 255, 255, 255, 32), Reason::Reserved),
];

/// Within `2000::/3`, the only block that global unicast addresses are assigned from, and beside it where a better
/// reason than [`Reason::Reserved`] is known.
const SPECIAL_V6: [(Ipv6Net, Reason); 16] = [
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), Reason::Unspecified),
    (LOOPBACK_V6, Reason::Loopback),
    // IPv4-compatible, IPv4-mapped, IPv4-translated.
    (v6([0, 0, 0, 0, 0, 0], 96), Reason::Transition),
    (v6([0, 0, 0, 0, 0, 0xffff], 96), Reason::Transition),
    (v6([0, 0, 0, 0, 0xffff, 0], 96), Reason::Transition),
    // NAT64 for local use.
    (v6([0x64, 0xff9b, 1, 0, 0, 0], 48), Reason::Transition),
    // Teredo, then the rest of the protocol assignments.
    (v6([0x2001, 0, 0, 0, 0, 0], 32), Reason::Transition),
    (v6([0x2001, 0, 0, 0, 0, 0], 23), Reason::Reserved),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0], 32), Reason::Documentation),
    (v6([0x2002, 0, 0, 0, 0, 0], 16), Reason::Transition),
    (v6([0x2620, 0x4f, 0x8000, 0, 0, 0], 48), Reason::Reserved),
    (v6([0x3fff, 0, 0, 0, 0, 0], 20), Reason::Documentation),
    (v6([0xfc00, 0, 0, 0, 0, 0], 7), Reason::Private),
    (v6([0xfe80, 0, 0, 0, 0, 0], 10), Reason::LinkLocal),
    (v6([0xfec0, 0, 0, 0, 0, 0], 10), Reason::Private),
    (v6([0xff00, 0, 0, 0, 0, 0], 8), Reason::Multicast),
];

const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0], 3);
/// Leads to the IPv4 address inside, which is looked at by itself: in networks without IPv4, public names resolve to it.
const NAT64_WELL_KNOWN: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0], 96);

/// Loopback of both families.
pub(super) fn loopback() -> [IpNet; 2] {
    [IpNet::V4(LOOPBACK_V4), IpNet::V6(LOOPBACK_V6)]
}

/// What the address is for, if it is not an ordinary public one. Does not look for an IPv4 address inside.
pub(super) fn special_purpose(address: IpAddr) -> Option<Reason> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<Reason> {
    if METADATA_V4.contains(&address) {
        return Some(Reason::Metadata);
    }
    SPECIAL_V4.iter().find(|(range, _)| range.contains(&address)).map(|(_, reason)| *reason)
}

fn special_v6(address: Ipv6Addr) -> Option<Reason> {
    if METADATA_V6.contains(&address) {
        return Some(Reason::Metadata);
    }
    let named = SPECIAL_V6.iter().find(|(range, _)| range.contains(&address)).map(|(_, reason)| *reason);
    let assigned = GLOBAL_UNICAST.contains(&address) || NAT64_WELL_KNOWN.contains(&address);
    named.or((!assigned).then_some(Reason::Reserved))
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 6], prefix: u8) -> Ipv6Net {
    let s = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], 0, 0), prefix)
}
