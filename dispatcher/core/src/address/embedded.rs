//! IPv4 addresses inside of IPv6 addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether it is an IPv4-mapped address, `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
pub(super) fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

/// Every IPv4 address that a transition mechanism could find inside, empty for an IPv4 address.
pub(super) fn ipv4_addresses(address: IpAddr) -> Vec<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return Vec::new() };
    FORMS.iter().filter_map(|form| form(&address)).collect()
}

/// Finds the IPv4 address that one mechanism puts inside, if the address is of its form.
type Form = fn(&Ipv6Addr) -> Option<Ipv4Addr>;

const FORMS: [Form; 10] = [
    mapped,
    compatible,
    translated,
    nat64_well_known,
    nat64_local_48,
    nat64_local_96,
    six_to_four,
    teredo_client,
    teredo_server,
    isatap,
];

/// `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
fn mapped(address: &Ipv6Addr) -> Option<Ipv4Addr> {
    address.to_ipv4_mapped()
}

/// `::a.b.c.d`, deprecated (RFC 4291, 2.5.5.1). `::` and `::1` are not of this form.
fn compatible(address: &Ipv6Addr) -> Option<Ipv4Addr> {
    let of_form = address.segments()[..6] == [0; 6] && !address.is_unspecified() && !address.is_loopback();
    of_form.then(|| pick(address, [12, 13, 14, 15]))
}

/// `::ffff:0:a.b.c.d` (RFC 2765, 2.1).
fn translated(address: &Ipv6Addr) -> Option<Ipv4Addr> {
    (address.segments()[..6] == [0, 0, 0, 0, 0xffff, 0]).then(|| pick(address, [12, 13, 14, 15]))
}

/// `64:ff9b::a.b.c.d` (RFC 6052, 2.1).
fn nat64_well_known(address: &Ipv6Addr) -> Option<Ipv4Addr> {
    (address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0]).then(|| pick(address, [12, 13, 14, 15]))
}

/// `64:ff9b:1::/48` used as one prefix (RFC 8215): the address stands on both sides of a reserved octet
/// (RFC 6052, 2.2), and what follows is zero.
fn nat64_local_48(address: &Ipv6Addr) -> Option<Ipv4Addr> {
    (is_nat64_local(address) && address.octets()[11..] == [0; 5]).then(|| pick(address, [6, 7, 9, 10]))
}

/// `64:ff9b:1::/48` used for prefixes of 96 bits: the address is at the end.
fn nat64_local_96(address: &Ipv6Addr) -> Option<Ipv4Addr> {
    (is_nat64_local(address) && address.octets()[11..] != [0; 5]).then(|| pick(address, [12, 13, 14, 15]))
}

fn is_nat64_local(address: &Ipv6Addr) -> bool {
    address.segments()[..3] == [0x64, 0xff9b, 1]
}

/// `2002:aabb:ccdd::/48` (RFC 3056, 2).
fn six_to_four(address: &Ipv6Addr) -> Option<Ipv4Addr> {
    (address.segments()[0] == 0x2002).then(|| pick(address, [2, 3, 4, 5]))
}

/// `2001:0:server:…:client`, the client's bits inverted (RFC 4380, 4).
fn teredo_client(address: &Ipv6Addr) -> Option<Ipv4Addr> {
    is_teredo(address).then(|| Ipv4Addr::from_bits(!pick(address, [12, 13, 14, 15]).to_bits()))
}

/// The server of a Teredo address (RFC 4380, 4).
fn teredo_server(address: &Ipv6Addr) -> Option<Ipv4Addr> {
    is_teredo(address).then(|| pick(address, [4, 5, 6, 7]))
}

fn is_teredo(address: &Ipv6Addr) -> bool {
    address.segments()[..2] == [0x2001, 0]
}

/// `…:0:5efe:a.b.c.d` or `…:200:5efe:a.b.c.d` below any prefix (RFC 5214, 6.1).
fn isatap(address: &Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    (segments[4] & !0x0200 == 0 && segments[5] == 0x5efe).then(|| pick(address, [12, 13, 14, 15]))
}

fn pick(address: &Ipv6Addr, positions: [usize; 4]) -> Ipv4Addr {
    positions.map(|position| address.octets()[position]).into()
}
