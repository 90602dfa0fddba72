//! Host names that belong to internal networks.

/// Names at or below these never belong to a public host: special-use names (RFC 6761, 6762, 8375, and `internal`,
/// reserved by ICANN in 2024), what routers and offices make up, and the names of Kubernetes services.
const INTERNAL_SUFFIXES: [&str; 13] = [
    "corp",
    "home",
    "home.arpa",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "onion",
    "private",
    "svc",
];

/// Whether a name, in lower case as the URL parser leaves it, belongs to an internal network: a single label
/// (completed by a search list), a known suffix, or a name with an empty label.
pub(super) fn is_internal(name: &str) -> bool {
    let name = without_root(name);
    !name.contains('.')
        || name.split('.').any(str::is_empty)
        || INTERNAL_SUFFIXES.iter().any(|suffix| is_at_or_below(name, suffix))
}

/// Whether a name is the other or below it, whatever their case and whether or not they end in the root's dot.
pub(super) fn is_at_or_below(name: &str, parent: &str) -> bool {
    let (name, parent) = (without_root(name), without_root(parent));
    let Some(start) = name.len().checked_sub(parent.len()) else { return false };
    let Some((below, end)) = name.split_at_checked(start) else { return false };
    !parent.is_empty() && end.eq_ignore_ascii_case(parent) && (below.is_empty() || below.ends_with('.'))
}

fn without_root(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}
