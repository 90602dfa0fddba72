//! Which scope each route asks for. What does not stand here is not reached with any token.

use dispatcher_core::scope::Scope;
use http::Method;

/// What a route asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRule {
    /// The method. Whoever may GET may also ask for the HEAD.
    pub method: Method,
    /// The path, as the router knows it.
    pub path: &'static str,
    /// The scope.
    pub scope: Scope,
}

const fn rule(method: Method, path: &'static str, scope: Scope) -> RouteRule {
    RouteRule { method, path, scope }
}

/// Every route of the API.
pub static ROUTES: [RouteRule; 13] = [
    rule(Method::POST, "/v1/tenants/{tenant}/events:publish", Scope::Publish),
    rule(Method::POST, "/v1/tenants/{tenant}/events", Scope::Publish),
    rule(Method::POST, "/v1/tenants/{tenant}/events:route", Scope::Read),
    rule(Method::GET, "/v1/tenants/{tenant}/events", Scope::Read),
    rule(Method::GET, "/v1/tenants/{tenant}/events/{event}", Scope::Read),
    rule(Method::GET, "/v1/tenants/{tenant}/events/{event}/body", Scope::Read),
    rule(Method::GET, "/v1/tenants/{tenant}/deliveries", Scope::Read),
    rule(Method::GET, "/v1/tenants/{tenant}/deliveries/{delivery}", Scope::Read),
    rule(Method::POST, "/v1/tenants/{tenant}/deliveries/{delivery}", Scope::Replay),
    rule(Method::GET, "/v1/tenants/{tenant}/deliveries/{delivery}/attempts", Scope::Read),
    rule(Method::GET, "/v1/tenants/{tenant}/endpoints", Scope::Read),
    rule(Method::GET, "/v1/tenants/{tenant}/endpoints/{endpoint}", Scope::Read),
    rule(Method::GET, "/v1/tenants/{tenant}/subscriptions", Scope::Read),
];

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A route, which asks for this scope.
    Route(Scope),
    /// A path that does not know the method, only these, as they stand in the header `Allow`.
    OtherMethod(String),
    /// Nothing that there is.
    Nothing,
}

/// What a request for a path, percent-encoded as it was sent, asks for.
pub(super) fn asked(method: &Method, path: &str) -> Asked {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let known: Vec<&RouteRule> = ROUTES.iter().filter(|rule| is_of(path, rule.path)).collect();
    match known.iter().find(|rule| rule.method == *method) {
        Some(rule) => Asked::Route(rule.scope),
        None if known.is_empty() => Asked::Nothing,
        None => Asked::OtherMethod(methods_of(&known)),
    }
}

/// Whether a path is of a pattern, in which a segment in braces stands for any that is not empty.
fn is_of(path: &str, pattern: &str) -> bool {
    let mut segments = path.split('/');
    let fits = |wanted: &str| match segments.next() {
        Some(segment) if wanted.starts_with('{') => !segment.is_empty(),
        segment => segment == Some(wanted),
    };
    pattern.split('/').all(fits) && segments.next().is_none()
}

fn methods_of(rules: &[&RouteRule]) -> String {
    let mut methods: Vec<&str> = Vec::new();
    for rule in rules {
        methods.push(rule.method.as_str());
        if rule.method == Method::GET {
            methods.push("HEAD");
        }
    }
    methods.sort_unstable();
    methods.join(",")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_that_is_served_asks_for_a_scope_and_no_other_is_listed() {
        let sources = [include_str!("../api/mod.rs"), include_str!("../ingest/handlers.rs")];
        let mut served = BTreeSet::new();
        for line in sources.iter().flat_map(|source| source.lines()) {
            let Some(route) = line.trim().strip_prefix(".route(\"") else { continue };
            let (path, handlers) = route.split_once('"').unwrap();
            for (method, call) in [("GET", "get("), ("POST", "post("), ("PUT", "put("), ("DELETE", "delete(")] {
                let calls = [format!(" {call}"), format!(".{call}")];
                if calls.iter().any(|call| handlers.contains(call)) {
                    served.insert((method, path.to_owned()));
                }
            }
        }
        let listed: BTreeSet<_> = ROUTES.iter().map(|rule| (rule.method.as_str(), rule.path.to_owned())).collect();
        assert_eq!(served, listed);
        assert_eq!(listed.len(), ROUTES.len());
    }

    #[test]
    fn a_path_is_of_one_pattern_segment_by_segment() {
        let other = |methods: &str| Asked::OtherMethod(methods.to_owned());
        for (method, path, expected) in [
            (Method::GET, "/v1/tenants/shop/events", Asked::Route(Scope::Read)),
            (Method::HEAD, "/v1/tenants/shop/events", Asked::Route(Scope::Read)),
            (Method::POST, "/v1/tenants/shop/events", Asked::Route(Scope::Publish)),
            (Method::POST, "/v1/tenants/shop/events:publish", Asked::Route(Scope::Publish)),
            (Method::POST, "/v1/tenants/shop/deliveries/1:replay", Asked::Route(Scope::Replay)),
            (Method::GET, "/v1/tenants/events/events/events", Asked::Route(Scope::Read)),
            (Method::DELETE, "/v1/tenants/shop/events", other("GET,HEAD,POST")),
            (Method::GET, "/v1/tenants/shop/events:publish", other("POST")),
            (Method::GET, "/v1/tenants/shop", Asked::Nothing),
            (Method::GET, "/v1/tenants//events", Asked::Nothing),
            (Method::GET, "/v1/tenants/shop/events/", Asked::Nothing),
            (Method::GET, "/v1/tenants/shop/events/1/2/3", Asked::Nothing),
            (Method::POST, "/v1/tenants/shop/events%3Apublish", Asked::Nothing),
            (Method::GET, "//v1/tenants/shop/events", Asked::Nothing),
            (Method::GET, "/V1/tenants/shop/events", Asked::Nothing),
            (Method::GET, "/", Asked::Nothing),
            (Method::OPTIONS, "*", Asked::Nothing),
        ] {
            assert_eq!(asked(&method, path), expected, "{method} {path}");
        }
    }
}
