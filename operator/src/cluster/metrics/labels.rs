//! Values of labels: closed sets.

use crds::Kind;

/// How the publication of a routing table ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Publication {
    /// The ledger has it.
    Done,
    /// Another leader wrote meanwhile.
    Superseded,
    /// The ledger did not take it.
    Failed,
}

impl Publication {
    /// Every end.
    pub const ALL: [Self; 3] = [Self::Done, Self::Superseded, Self::Failed];

    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Superseded => "superseded",
            Self::Failed => "failed",
        }
    }
}

/// What the reading, or the making, of a Secret yielded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecretResult {
    /// It is there.
    Present,
    /// It is not there.
    Absent,
    /// It was made.
    Made,
    /// The permission is missing.
    Forbidden,
    /// The API server did not do it.
    Failed,
}

impl SecretResult {
    /// Every result.
    pub const ALL: [Self; 5] = [Self::Present, Self::Absent, Self::Made, Self::Forbidden, Self::Failed];

    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Absent => "absent",
            Self::Made => "made",
            Self::Forbidden => "forbidden",
            Self::Failed => "failed",
        }
    }
}

/// What became of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventResult {
    /// The API server has it.
    Told,
    /// It was counted in a series that the API server has.
    Repeated,
    /// It was one too many, and dropped.
    Dropped,
    /// The API server did not take it.
    Refused,
}

impl EventResult {
    /// Every result.
    pub const ALL: [Self; 4] = [Self::Told, Self::Repeated, Self::Dropped, Self::Refused];

    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Repeated => "repeated",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
        }
    }
}

/// A part of the process that something may keep from its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TroubledPart {
    /// What follows the resources.
    Watches,
    /// What takes part in the election.
    Lease,
    /// What reads and writes the ledger.
    Ledger,
}

impl TroubledPart {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Watches => "watches",
            Self::Lease => "lease",
            Self::Ledger => "ledger",
        }
    }
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Watched {
    /// Resources of a kind.
    Resources(Kind),
    /// Namespaces.
    Namespaces,
    /// Deployments of pools.
    Deployments,
    /// PodDisruptionBudgets of pools.
    PodDisruptionBudgets,
    /// Services of pools.
    Services,
    /// Secrets, where the permission is given.
    Secrets,
}

impl Watched {
    /// The stable name: that of the resource in paths and permissions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resources(kind) => kind.plural(),
            Self::Namespaces => "namespaces",
            Self::Deployments => "deployments",
            Self::PodDisruptionBudgets => "poddisruptionbudgets",
            Self::Services => "services",
            Self::Secrets => "secrets",
        }
    }
}
