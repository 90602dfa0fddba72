use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn refusal(policy: &AddressPolicy, url: &str) -> Option<AddressErrorReason> {
    policy.check_url(&Url::parse(url).unwrap()).err().map(|error| error.reason())
}

fn address_refusal(policy: &AddressPolicy, address: IpAddr) -> Option<AddressErrorReason> {
    policy.check_address(address).err().map(|error| error.reason())
}

/// All forms in which an IPv4 address can stand in an IPv6 address.
fn embeddings(inner: Ipv4Addr) -> Vec<(&'static str, Ipv6Addr)> {
    let [a, b, c, d] = inner.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let v6 = |segments: [u16; 8]| Ipv6Addr::from(segments);
    let middle = [u16::from_be_bytes([a, b]), u16::from_be_bytes([0, c]), u16::from_be_bytes([d, 0])];
    vec![
        ("mapped", v6([0, 0, 0, 0, 0, 0xffff, high, low])),
        ("compatible", v6([0, 0, 0, 0, 0, 0, high, low])),
        ("translated", v6([0, 0, 0, 0, 0xffff, 0, high, low])),
        ("nat64", v6([0x64, 0xff9b, 0, 0, 0, 0, high, low])),
        ("local nat64, /48", v6([0x64, 0xff9b, 1, middle[0], middle[1], middle[2], 0, 0])),
        ("local nat64, /96", v6([0x64, 0xff9b, 1, 2, 3, 4, high, low])),
        ("6to4", v6([0x2002, high, low, 0, 0, 0, 0, 1])),
        ("teredo client", v6([0x2001, 0, 0x0808, 0x0808, 0, 0, !high, !low])),
        ("teredo server", v6([0x2001, 0, high, low, 0, 0, !0x0808, !0x0808])),
        ("isatap", v6([0x2a00, 1, 2, 3, 0, 0x5efe, high, low])),
        ("isatap, universal", v6([0x2a00, 1, 2, 3, 0x200, 0x5efe, high, low])),
    ]
}

#[test]
fn every_special_range_is_refused_at_both_of_its_ends() {
    use AddressErrorReason as Reason;
    let public = AddressPolicy::public_https();
    for (range, reason) in [
        ("0.0.0.0/32", Reason::Unspecified),
        ("0.0.0.1/32", Reason::Reserved),
        ("10.0.0.0/8", Reason::Private),
        ("100.64.0.0/10", Reason::SharedAddressSpace),
        ("127.0.0.0/8", Reason::Loopback),
        ("169.254.0.0/16", Reason::LinkLocal),
        ("172.16.0.0/12", Reason::Private),
        ("192.0.0.0/24", Reason::Reserved),
        ("192.0.2.0/24", Reason::Documentation),
        ("192.31.196.0/24", Reason::Reserved),
        ("192.52.193.0/24", Reason::Reserved),
        ("192.88.99.0/24", Reason::Transition),
        ("192.168.0.0/16", Reason::Private),
        ("192.175.48.0/24", Reason::Reserved),
        ("198.18.0.0/15", Reason::Documentation),
        ("198.51.100.0/24", Reason::Documentation),
        ("203.0.113.0/24", Reason::Documentation),
        ("224.0.0.0/4", Reason::Multicast),
        ("240.0.0.0/4", Reason::Reserved),
        ("169.254.169.254/32", Reason::Metadata),
        ("169.254.170.2/32", Reason::Metadata),
        ("100.100.100.200/32", Reason::Metadata),
        ("168.63.129.16/32", Reason::Metadata),
        ("192.0.0.192/32", Reason::Metadata),
        ("::/128", Reason::Unspecified),
        ("::1/128", Reason::Loopback),
        ("64:ff9b:1::/48", Reason::Transition),
        ("100::/64", Reason::Reserved),
        ("100:0:0:1::/64", Reason::Reserved),
        ("2001::/32", Reason::Transition),
        ("2001:1::/32", Reason::Reserved),
        ("2001:1ff::/32", Reason::Reserved),
        ("2001:db8::/32", Reason::Documentation),
        ("2002::/16", Reason::Transition),
        ("2620:4f:8000::/48", Reason::Reserved),
        ("3fff::/20", Reason::Documentation),
        ("5f00::/16", Reason::Reserved),
        ("fc00::/7", Reason::Private),
        ("fe80::/10", Reason::LinkLocal),
        ("fec0::/10", Reason::Private),
        ("ff00::/8", Reason::Multicast),
        ("fd00:ec2::254/128", Reason::Metadata),
        ("fd20:ce::254/128", Reason::Metadata),
        ("4000::/3", Reason::Reserved),
    ] {
        let range = net(range);
        for address in [range.network(), range.broadcast()] {
            assert_eq!(address_refusal(&public, address), Some(reason), "{address} of {range}");
        }
    }
}

/// Every block of the IANA registries of special-purpose addresses as of 2025-10-09
/// (<https://www.iana.org/assignments/iana-ipv4-special-registry>, <https://www.iana.org/assignments/iana-ipv6-special-registry>),
/// the globally reachable ones too; only of `64:ff9b::/96` and `::ffff:0:0/96` does the IPv4 address inside decide.
#[test]
fn every_block_of_the_registries_is_refused() {
    let public = AddressPolicy::public_https();
    for (block, name) in [
        ("0.0.0.0/8", "this network, RFC 791"),
        ("0.0.0.0/32", "this host on this network, RFC 1122"),
        ("10.0.0.0/8", "private use, RFC 1918"),
        ("100.64.0.0/10", "shared address space, RFC 6598"),
        ("127.0.0.0/8", "loopback, RFC 1122"),
        ("169.254.0.0/16", "link local, RFC 3927"),
        ("172.16.0.0/12", "private use, RFC 1918"),
        ("192.0.0.0/24", "IETF protocol assignments, RFC 6890"),
        ("192.0.0.0/29", "IPv4 service continuity, RFC 7335"),
        ("192.0.0.8/32", "IPv4 dummy address, RFC 7600"),
        ("192.0.0.9/32", "port control protocol anycast, RFC 7723"),
        ("192.0.0.10/32", "TURN anycast, RFC 8155"),
        ("192.0.0.170/31", "NAT64 and DNS64 discovery, RFC 8880"),
        ("192.0.2.0/24", "documentation, RFC 5737"),
        ("192.31.196.0/24", "AS112, RFC 7535"),
        ("192.52.193.0/24", "automatic multicast tunnelling, RFC 7450"),
        ("192.88.99.0/24", "6to4 relay anycast, RFC 7526"),
        ("192.88.99.2/32", "6a44 relay anycast, RFC 6751"),
        ("192.168.0.0/16", "private use, RFC 1918"),
        ("192.175.48.0/24", "direct delegation AS112, RFC 7534"),
        ("198.18.0.0/15", "benchmarking, RFC 2544"),
        ("198.51.100.0/24", "documentation, RFC 5737"),
        ("203.0.113.0/24", "documentation, RFC 5737"),
        ("240.0.0.0/4", "reserved, RFC 1112"),
        ("255.255.255.255/32", "limited broadcast, RFC 8190"),
        ("::1/128", "loopback, RFC 4291"),
        ("::/128", "unspecified, RFC 4291"),
        ("64:ff9b:1::/48", "IPv4-IPv6 translation, RFC 8215"),
        ("100::/64", "discard only, RFC 6666"),
        ("100:0:0:1::/64", "dummy prefix, RFC 9780"),
        ("2001::/23", "IETF protocol assignments, RFC 2928"),
        ("2001::/32", "Teredo, RFC 4380"),
        ("2001:1::1/128", "port control protocol anycast, RFC 7723"),
        ("2001:1::2/128", "TURN anycast, RFC 8155"),
        ("2001:1::3/128", "DNS-SD service registration anycast, RFC 9665"),
        ("2001:2::/48", "benchmarking, RFC 5180"),
        ("2001:3::/32", "automatic multicast tunnelling, RFC 7450"),
        ("2001:4:112::/48", "AS112, RFC 7535"),
        ("2001:10::/28", "ORCHID, RFC 4843"),
        ("2001:20::/28", "ORCHIDv2, RFC 7343"),
        ("2001:30::/28", "drone remote identification, RFC 9374"),
        ("2001:db8::/32", "documentation, RFC 3849"),
        ("2002::/16", "6to4, RFC 3056"),
        ("2620:4f:8000::/48", "direct delegation AS112, RFC 7534"),
        ("3fff::/20", "documentation, RFC 9637"),
        ("5f00::/16", "segment routing, RFC 9602"),
        ("fc00::/7", "unique local, RFC 4193"),
        ("fe80::/10", "link-local unicast, RFC 4291"),
    ] {
        let block = net(block);
        for address in [block.network(), block.broadcast()] {
            assert!(address_refusal(&public, address).is_some(), "{address} of {block}, {name}");
        }
    }
}

#[test]
fn public_addresses_next_to_the_ranges_are_allowed() {
    let public = AddressPolicy::public_https();
    for address in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:200::1",
        "2001:4860:4860::8888",
        "2606:4700::1111",
        "3ffe:ffff::1",
        "64:ff9b::8.8.8.8",
        "::ffff:8.8.8.8",
        "2a00:1::5efe:808:808",
    ] {
        assert_eq!(address_refusal(&public, ip(address)), None, "{address}");
    }
}

#[test]
fn a_private_address_is_refused_in_every_spelling() {
    let public = AddressPolicy::public_https();
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "017700000001",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "0x7f.1",
        "127.0.0.1.",
        "127。0。0。1",
        "１２７.0.0.1",
        "%31%32%37.0.0.1",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[0000:0000:0000:0000:0000:0000:0000:0001]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:FFFF:7F00:0001]",
    ] {
        assert_eq!(refusal(&public, &format!("https://{host}/")), Some(AddressErrorReason::Loopback), "{host}");
    }
    assert_eq!(refusal(&public, "https://0/"), Some(AddressErrorReason::Unspecified));
    assert_eq!(refusal(&public, "https://[::]/"), Some(AddressErrorReason::Unspecified));
    assert_eq!(refusal(&public, "https://0xa9fea9fe/"), Some(AddressErrorReason::Metadata));
}

#[test]
fn urls_are_held_to_scheme_user_info_port_and_host_name() {
    use AddressErrorReason as Reason;
    let public = AddressPolicy::public_https();
    for (url, reason) in [
        ("https://example.com/hook?a=b", None),
        ("https://example.com./hook", None),
        ("https://example.com:443/", None),
        ("https://example.com:8443/", None),
        ("https://bücher.example/", None),
        ("https://localhost.example.com/", None),
        ("https://notlocal/", Some(Reason::InternalHost)),
        ("https://notlocal.example/", None),
        ("http://example.com/", Some(Reason::Scheme)),
        ("ftp://example.com/", Some(Reason::Scheme)),
        ("file:///etc/passwd", Some(Reason::Scheme)),
        ("data:text/plain,x", Some(Reason::Scheme)),
        ("https://user@example.com/", Some(Reason::UserInfo)),
        ("https://:pass@example.com/", Some(Reason::UserInfo)),
        ("https://example.com:22/", Some(Reason::Port)),
        ("https://example.com:80/", Some(Reason::Port)),
        ("https://example.com:5432/", Some(Reason::Port)),
        ("https://example.com:6443/", Some(Reason::Port)),
        ("https://localhost/", Some(Reason::InternalHost)),
        ("https://LOCALHOST./", Some(Reason::InternalHost)),
        ("https://a.localhost/", Some(Reason::InternalHost)),
        ("https://kubernetes/", Some(Reason::InternalHost)),
        ("https://kubernetes.default.svc/", Some(Reason::InternalHost)),
        ("https://kubernetes.default.svc./", Some(Reason::InternalHost)),
        ("https://kubernetes.default.svc.cluster.local/", Some(Reason::InternalHost)),
        ("https://metadata.google.internal/", Some(Reason::InternalHost)),
        ("https://printer.local/", Some(Reason::InternalHost)),
        ("https://example.com../", Some(Reason::InternalHost)),
    ] {
        assert_eq!(refusal(&public, url), reason, "{url}");
    }
}

#[test]
fn development_adds_http_loopback_and_any_port_and_nothing_else() {
    use AddressErrorReason as Reason;
    let development = AddressPolicy::development();
    for (url, reason) in [
        ("http://localhost:3000/", None),
        ("http://receiver.localhost:41234/", None),
        ("http://receiver.localhost./", None),
        ("http://127.0.0.1:9/", None),
        ("http://127.9.9.9:22/", None),
        ("http://[::1]:9/", None),
        ("http://[::ffff:127.0.0.1]:9/", None),
        ("https://example.com/", None),
        ("http://example.com:3000/", None),
        ("http://10.0.0.1/", Some(Reason::Private)),
        ("http://0.0.0.0/", Some(Reason::Unspecified)),
        ("http://[::7f00:1]/", Some(Reason::Transition)),
        ("http://169.254.169.254/", Some(Reason::Metadata)),
        ("http://kubernetes.default.svc/", Some(Reason::InternalHost)),
        ("http://user@localhost/", Some(Reason::UserInfo)),
        ("ftp://localhost/", Some(Reason::Scheme)),
    ] {
        assert_eq!(refusal(&development, url), reason, "{url}");
    }
}

#[test]
fn ports_follow_the_rule() {
    let with = |ports, allow_http| AddressPolicy { allow_http, ports, ..AddressPolicy::public_https() };
    for (policy, open, closed) in [
        (with(PortRule::Web, false), vec![443, 8443], vec![1, 80, 8080, 25, 65_535]),
        (with(PortRule::Web, true), vec![443, 8443, 80, 8080], vec![22, 9090]),
        (with(PortRule::Only(vec![9443]), true), vec![9443], vec![443, 80]),
        (with(PortRule::Any, false), vec![1, 22, 443, 65_535], vec![]),
    ] {
        let refused = |port: &u16| refusal(&policy, &format!("https://example.com:{port}/"));
        assert!(open.iter().all(|port| refused(port).is_none()), "{policy:?}");
        assert!(closed.iter().all(|port| refused(port) == Some(AddressErrorReason::Port)), "{policy:?}");
    }
}

#[test]
fn allowed_ranges_open_what_they_name_and_deny_wins() {
    use AddressErrorReason as Reason;
    let policy = AddressPolicy {
        allow: vec![net("10.0.0.0/8"), net("fd00::/8"), net("100.64.0.0/10"), net("2002::/16")],
        deny: vec![net("10.96.0.0/12"), net("8.8.8.0/24"), net("fd00:1::/32")],
        ..AddressPolicy::public_https()
    };
    for (address, reason) in [
        ("10.1.2.3", None),
        ("::ffff:10.1.2.3", None),
        ("64:ff9b::10.1.2.3", None),
        ("2002:a01:203::1", None),
        ("fd00:2::1", None),
        ("100.64.0.1", None),
        ("192.168.0.1", Some(Reason::Private)),
        ("2002:c0a8:1::1", Some(Reason::Private)),
        ("10.96.0.1", Some(Reason::Denied)),
        ("::ffff:10.96.0.1", Some(Reason::Denied)),
        ("64:ff9b::8.8.8.8", Some(Reason::Denied)),
        ("8.8.8.8", Some(Reason::Denied)),
        ("fd00:1::1", Some(Reason::Denied)),
        ("100.100.100.200", Some(Reason::Metadata)),
        ("fd00:ec2::254", Some(Reason::Metadata)),
    ] {
        assert_eq!(address_refusal(&policy, ip(address)), reason, "{address}");
    }
    let one = AddressPolicy { allow: vec![net("169.254.169.254/32")], ..AddressPolicy::public_https() };
    assert_eq!(address_refusal(&one, ip("169.254.169.254")), None);
}

#[test]
fn an_allowed_host_name_is_allowed_with_all_below_it() {
    let policy = AddressPolicy {
        allow_hosts: vec!["svc".to_owned(), "Payments.Internal".to_owned(), String::new()],
        ..AddressPolicy::public_https()
    };
    for (host, allowed) in [
        ("receiver.team.svc", true),
        ("receiver.team.svc.", true),
        ("payments.internal", true),
        ("a.payments.internal", true),
        ("xpayments.internal", false),
        ("other.internal", false),
        ("localhost", false),
    ] {
        assert_eq!(refusal(&policy, &format!("https://{host}/")).is_none(), allowed, "{host}");
    }
}

#[test]
fn a_refusal_says_what_to_do_and_nothing_secret() {
    let policy = AddressPolicy::public_https();
    let message = |url: &str| policy.check_url(&Url::parse(url).unwrap()).unwrap_err().to_string();
    assert_eq!(
        message("https://10.0.0.1/hook"),
        "the address 10.0.0.1 is in a private network: use a public address, or have the installation allow it"
    );
    let with_secrets = message("https://hunter2:hunter2@example.com/hunter2?hunter2");
    assert!(!with_secrets.contains("hunter2"), "{with_secrets}");
}

fn special_v4_address() -> impl Strategy<Value = Ipv4Addr> {
    any::<u32>()
        .prop_map(Ipv4Addr::from)
        .prop_filter("special", |address| ranges::special_purpose(IpAddr::V4(*address)).is_some())
}

proptest! {
    #[test]
    fn no_form_of_a_special_ipv4_address_gets_through(inner in special_v4_address()) {
        let public = AddressPolicy::public_https();
        for (form, address) in embeddings(inner) {
            prop_assert!(public.check_address(address.into()).is_err(), "{inner} as {form}: {address}");
            let url = Url::parse(&format!("https://[{address}]/")).unwrap();
            prop_assert!(public.check_url(&url).is_err(), "{inner} as {form}: {url}");
        }
    }

    #[test]
    fn allowing_all_of_ipv6_opens_no_special_ipv4_address(inner in special_v4_address()) {
        let policy = AddressPolicy { allow: vec![net("::/0")], ..AddressPolicy::public_https() };
        for (form, address) in embeddings(inner) {
            // Two forms that are addresses of their own rather than containers.
            if !address.is_unspecified() && !address.is_loopback() {
                prop_assert!(policy.check_address(address.into()).is_err(), "{inner} as {form}: {address}");
            }
        }
    }

    #[test]
    fn a_denied_ipv4_address_is_denied_in_every_form(bits: u32) {
        let inner = Ipv4Addr::from(bits);
        let policy = AddressPolicy {
            allow: vec![net("::/0"), net("0.0.0.0/0")],
            deny: vec![IpNet::from(IpAddr::V4(inner))],
            ..AddressPolicy::public_https()
        };
        for (form, address) in embeddings(inner) {
            if !address.is_unspecified() && !address.is_loopback() {
                let reason = address_refusal(&policy, address.into());
                prop_assert_eq!(reason, Some(AddressErrorReason::Denied), "{} as {}", inner, form);
            }
        }
    }

    #[test]
    fn only_assigned_ipv6_space_is_public(bits: u128) {
        let address = Ipv6Addr::from(bits);
        let public = address.segments()[0] >> 13 == 1;
        prop_assume!(!public);
        prop_assert!(AddressPolicy::public_https().check_address(address.into()).is_err(), "{}", address);
    }
}
