//! What a resource reports about itself: condition types, their statuses and their reasons. Nothing else names one.

use crate::Kind;

/// Types of conditions (`status.conditions[].type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// True when the resource is accepted and in effect. Says nothing about whether deliveries succeed.
    Ready,
    /// Whether everything that the resource names is there.
    ResolvedRefs,
    /// Whether every dispatcher that consumes has loaded this generation.
    Programmed,
    /// Whether deliveries arrive, and why not.
    Delivering,
    /// Whether all that was to be done is done.
    Complete,
    /// Whether the number of dispatchers is what the load asks for.
    Scaling,
    /// Present, and True, only while a change is on its way.
    Reconciling,
    /// Present, and True, only while the resource cannot get ready without a change by its owner.
    Stalled,
}

impl ConditionType {
    /// Every type.
    pub const ALL: [Self; 8] = [
        Self::Ready,
        Self::ResolvedRefs,
        Self::Programmed,
        Self::Delivering,
        Self::Complete,
        Self::Scaling,
        Self::Reconciling,
        Self::Stalled,
    ];

    /// The name that stands in `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
            Self::Delivering => "Delivering",
            Self::Complete => "Complete",
            Self::Scaling => "Scaling",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
        }
    }

    /// The reasons that a condition of this type may carry on a resource of this kind. Empty: the kind has no such
    /// condition.
    pub const fn reasons(self, kind: Kind) -> &'static [Reason] {
        match (self, kind) {
            (Self::Reconciling, _) => &[Reason::Progressing, Reason::ProgressingWithRetry],
            (_, Kind::DispatcherPool) => self.reasons_of_pool(),
            (_, Kind::Endpoint) => self.reasons_of_endpoint(),
            (_, Kind::Replay) => self.reasons_of_replay(),
            (_, Kind::Subscription) => self.reasons_of_subscription(),
        }
    }

    const fn reasons_of_pool(self) -> &'static [Reason] {
        match self {
            Self::Ready => &[
                Reason::Pending,
                Reason::Available,
                Reason::PoolAtZero,
                Reason::InvalidSpec,
                Reason::TemplateNotFound,
                Reason::ApplyFailed,
                Reason::PodsRefused,
                Reason::Unschedulable,
                Reason::NotAvailable,
            ],
            Self::ResolvedRefs => &[Reason::Resolved, Reason::TemplateNotFound],
            Self::Programmed => &[Reason::Programmed, Reason::Waiting],
            Self::Scaling => {
                &[Reason::AsMeasured, Reason::AtMaximum, Reason::NothingSucceeds, Reason::NotMeasured, Reason::External]
            }
            Self::Stalled => &[Reason::InvalidSpec],
            Self::Delivering | Self::Complete | Self::Reconciling => &[],
        }
    }

    const fn reasons_of_endpoint(self) -> &'static [Reason] {
        match self {
            Self::Ready => &[
                Reason::Pending,
                Reason::Programmed,
                Reason::Suspended,
                Reason::InvalidSpec,
                Reason::AddressBlocked,
                Reason::SecretNotFound,
                Reason::SecretKeyMissing,
                Reason::SecretForbidden,
                Reason::PoolNotFound,
            ],
            Self::ResolvedRefs => &[
                Reason::Resolved,
                Reason::SecretNotFound,
                Reason::SecretKeyMissing,
                Reason::SecretForbidden,
                Reason::PoolNotFound,
            ],
            Self::Programmed => &[Reason::Programmed, Reason::Waiting, Reason::PoolAtZero],
            Self::Delivering => &[
                Reason::Delivering,
                Reason::NoTraffic,
                Reason::NotRouted,
                Reason::Failing,
                Reason::CircuitOpen,
                Reason::Suspended,
                Reason::Gone,
                Reason::DisabledAfterFailures,
            ],
            Self::Stalled => &[Reason::InvalidSpec, Reason::AddressBlocked],
            Self::Complete | Self::Scaling | Self::Reconciling => &[],
        }
    }

    const fn reasons_of_replay(self) -> &'static [Reason] {
        match self {
            Self::Ready | Self::Complete => &[
                Reason::Pending,
                Reason::Running,
                Reason::Suspended,
                Reason::Delivering,
                Reason::Completed,
                Reason::InvalidSpec,
                Reason::InvalidFilter,
                Reason::EndpointNotFound,
                Reason::SubscriptionNotFound,
            ],
            Self::ResolvedRefs => &[Reason::Resolved, Reason::EndpointNotFound, Reason::SubscriptionNotFound],
            Self::Stalled => &[Reason::InvalidSpec, Reason::InvalidFilter],
            Self::Programmed | Self::Delivering | Self::Scaling | Self::Reconciling => &[],
        }
    }

    const fn reasons_of_subscription(self) -> &'static [Reason] {
        match self {
            Self::Ready => &[
                Reason::Pending,
                Reason::Programmed,
                Reason::Suspended,
                Reason::InvalidSpec,
                Reason::InvalidFilter,
                Reason::InvalidTransform,
                Reason::EndpointNotFound,
            ],
            Self::ResolvedRefs => &[Reason::Resolved, Reason::EndpointNotFound],
            Self::Programmed => &[Reason::Programmed, Reason::Waiting, Reason::PoolAtZero],
            Self::Stalled => &[Reason::InvalidSpec, Reason::InvalidFilter, Reason::InvalidTransform],
            Self::Delivering | Self::Complete | Self::Scaling | Self::Reconciling => &[],
        }
    }
}

/// Statuses of conditions (`status.conditions[].status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody knows yet.
    Unknown,
}

impl ConditionStatus {
    /// The word that stands in `status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Reasons of conditions (`status.conditions[].reason`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No controller has seen the resource yet.
    Pending,
    /// The resource is in effect.
    Programmed,
    /// The owner asked to suspend; this is what was asked for, so `Ready` is True.
    Suspended,
    /// The spec breaks a rule; the message says which field and how.
    InvalidSpec,
    /// The filter does not compile.
    InvalidFilter,
    /// The transform does not compile.
    InvalidTransform,
    /// The installation's address policy forbids the URL.
    AddressBlocked,
    /// A Secret that the resource names does not exist.
    SecretNotFound,
    /// A Secret exists but has no such key, or its value cannot be used.
    SecretKeyMissing,
    /// The controller may not read a Secret that the resource names.
    SecretForbidden,
    /// The endpoint that the subscription names does not exist, or its selector matches none.
    EndpointNotFound,
    /// The subscription that the replay names does not exist.
    SubscriptionNotFound,
    /// The pool that the endpoint names does not exist.
    PoolNotFound,
    /// Everything that the resource names is there.
    Resolved,
    /// Some dispatchers have not loaded this generation yet; the message counts them.
    Waiting,
    /// The pool has no dispatcher, so none has an older generation either.
    PoolAtZero,
    /// Deliveries succeed.
    Delivering,
    /// What is to be delivered again is looked for and started.
    Running,
    /// All that was to be done is done.
    Completed,
    /// Nothing was sent to the endpoint lately.
    NoTraffic,
    /// No subscription names the endpoint.
    NotRouted,
    /// Deliveries fail.
    Failing,
    /// Too many deliveries failed; the circuit is open and attempts pause.
    CircuitOpen,
    /// The receiver answered 410; the endpoint is disabled.
    Gone,
    /// Nothing but failures for as long as the spec allows; the endpoint is disabled.
    DisabledAfterFailures,
    /// A change is on its way.
    Progressing,
    /// A change is on its way and something that it needs failed; it is tried again.
    ProgressingWithRetry,
    /// Dispatchers are ready: as many as there should be at least.
    Available,
    /// The Deployment of the installation's default pool, which the pool's is made of, does not exist.
    TemplateNotFound,
    /// The API server refused an object that the pool needs; the message says which and why.
    ApplyFailed,
    /// The API server refuses the pods: a quota, or a policy.
    PodsRefused,
    /// No node takes a pod; the message says why.
    Unschedulable,
    /// Pods are there and do not get ready.
    NotAvailable,
    /// The number of dispatchers is what the load asks for, or on its way there.
    AsMeasured,
    /// The load asks for more dispatchers than the upper bound allows.
    AtMaximum,
    /// Most attempts fail, and more dispatchers would not change that; none is added.
    NothingSucceeds,
    /// The load is not known, so the number of dispatchers stays as it is.
    NotMeasured,
    /// Somebody else sets the number of dispatchers.
    External,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 38] = [
        Self::Pending,
        Self::Programmed,
        Self::Suspended,
        Self::InvalidSpec,
        Self::InvalidFilter,
        Self::InvalidTransform,
        Self::AddressBlocked,
        Self::SecretNotFound,
        Self::SecretKeyMissing,
        Self::SecretForbidden,
        Self::EndpointNotFound,
        Self::SubscriptionNotFound,
        Self::PoolNotFound,
        Self::Resolved,
        Self::Waiting,
        Self::PoolAtZero,
        Self::Delivering,
        Self::Running,
        Self::Completed,
        Self::NoTraffic,
        Self::NotRouted,
        Self::Failing,
        Self::CircuitOpen,
        Self::Gone,
        Self::DisabledAfterFailures,
        Self::Progressing,
        Self::ProgressingWithRetry,
        Self::Available,
        Self::TemplateNotFound,
        Self::ApplyFailed,
        Self::PodsRefused,
        Self::Unschedulable,
        Self::NotAvailable,
        Self::AsMeasured,
        Self::AtMaximum,
        Self::NothingSucceeds,
        Self::NotMeasured,
        Self::External,
    ];

    /// The word that stands in `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Programmed => "Programmed",
            Self::Suspended => "Suspended",
            Self::InvalidSpec => "InvalidSpec",
            Self::InvalidFilter => "InvalidFilter",
            Self::InvalidTransform => "InvalidTransform",
            Self::AddressBlocked => "AddressBlocked",
            Self::SecretNotFound => "SecretNotFound",
            Self::SecretKeyMissing => "SecretKeyMissing",
            Self::SecretForbidden => "SecretForbidden",
            Self::EndpointNotFound => "EndpointNotFound",
            Self::SubscriptionNotFound => "SubscriptionNotFound",
            Self::PoolNotFound => "PoolNotFound",
            Self::Resolved => "Resolved",
            Self::Waiting => "Waiting",
            Self::PoolAtZero => "PoolAtZero",
            Self::Delivering => "Delivering",
            Self::Running => "Running",
            Self::Completed => "Completed",
            Self::NoTraffic => "NoTraffic",
            Self::NotRouted => "NotRouted",
            Self::Failing => "Failing",
            Self::CircuitOpen => "CircuitOpen",
            Self::Gone => "Gone",
            Self::DisabledAfterFailures => "DisabledAfterFailures",
            Self::Progressing => "Progressing",
            Self::ProgressingWithRetry => "ProgressingWithRetry",
            Self::Available => "Available",
            Self::TemplateNotFound => "TemplateNotFound",
            Self::ApplyFailed => "ApplyFailed",
            Self::PodsRefused => "PodsRefused",
            Self::Unschedulable => "Unschedulable",
            Self::NotAvailable => "NotAvailable",
            Self::AsMeasured => "AsMeasured",
            Self::AtMaximum => "AtMaximum",
            Self::NothingSucceeds => "NothingSucceeds",
            Self::NotMeasured => "NotMeasured",
            Self::External => "External",
        }
    }
}
